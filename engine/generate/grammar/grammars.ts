import type { ModelTokenizer } from '../../text/tokenizer.ts'
import type { TokenGrammar } from '../sequence.ts'
import { GrammarChecker } from './checker.ts'
import type { GrammarFormat } from './format.ts'
import { type CompiledTokenGrammar, GrammarLibrary, type GrammarVocabulary } from './xgrammar.ts'

/** Compiled grammars that are kept; each has a few megabytes at a large vocabulary. */
const KEPT = 16

/** A model's grammars: tried out elsewhere, compiled here, the last ones kept. Nothing is loaded before the first. */
export class Grammars {
  readonly #vocabulary: GrammarVocabulary
  readonly #checker: GrammarChecker
  /** By the format's text, least recently used first. */
  readonly #compiled = new Map<string, Promise<CompiledTokenGrammar>>()
  #library: Promise<GrammarLibrary> | undefined

  /** `logits`: numbers in a row of the model's logits. */
  constructor(tokenizer: ModelTokenizer, logits: number) {
    this.#vocabulary = vocabularyOf(tokenizer, logits)
    this.#checker = new GrammarChecker(this.#vocabulary)
  }

  /**
   * A matcher at the beginning of the grammar, to be disposed of by the caller.
   * @throws EngineError invalid 'invalid_schema'.
   */
  async start(format: GrammarFormat): Promise<TokenGrammar & { dispose(): void }> {
    return (await this.#get(format)).start()
  }

  async close(): Promise<void> {
    await this.#checker.close()
  }

  #get(format: GrammarFormat): Promise<CompiledTokenGrammar> {
    const key = JSON.stringify(format)
    const known = this.#compiled.get(key)
    this.#compiled.delete(key)
    const compiled = known ?? this.#compile(format)
    this.#compiled.set(key, compiled)
    if (!known) {
      compiled.catch(() => this.#compiled.delete(key))
      this.#dropOldest()
    }
    return compiled
  }

  async #compile(format: GrammarFormat): Promise<CompiledTokenGrammar> {
    await this.#checker.check(format)
    this.#library ??= GrammarLibrary.load(this.#vocabulary)
    return (await this.#library).compile(format)
  }

  #dropOldest(): void {
    for (const [key, oldest] of this.#compiled) {
      if (this.#compiled.size <= KEPT) return
      this.#compiled.delete(key)
      oldest.then((grammar) => grammar.dispose()).catch(() => {})
    }
  }
}

function vocabularyOf(tokenizer: ModelTokenizer, logits: number): GrammarVocabulary {
  const size = Math.max(logits, tokenizer.vocabSize)
  const ids = Array.from({ length: tokenizer.vocabSize }, (_, id) => id)
  const isBlank = (bytes: Uint8Array) =>
    bytes.length > 0 && bytes.every((byte) => byte === 0x20 || byte === 0x0a)
  const isControl = (byte: number) => byte < 0x20 && byte !== 0x0a
  return {
    texts: ids.map((id) => tokenizer.tokenText(id) ?? ''),
    blankIds: ids.filter((id) => isBlank(tokenizer.tokenBytes(id))),
    controlIds: ids.filter((id) => tokenizer.tokenBytes(id).some(isControl)),
    kind: tokenizer.vocabularyKind,
    logits: size,
    stopIds: [...tokenizer.eosTokenIds],
  }
}
