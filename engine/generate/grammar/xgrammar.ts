import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type * as XGrammar from '@mlc-ai/web-xgrammar'
import { EngineError } from '../../errors.ts'
import type { VocabularyKind } from '../../text/token-bytes.ts'
import type { TokenGrammar } from '../sequence.ts'
import type { GrammarFormat } from './format.ts'
import { type NarrowedSchema, narrowSchema } from './narrow-schema.ts'

/** A model's tokens as the library takes them; plain data, so that it can go to a worker. */
export interface GrammarVocabulary {
  /** By token id, as the vocabulary writes them; ids without a token are empty. */
  texts: string[]
  kind: VocabularyKind
  /** Rows of the model's logits: may be more than the tokens. */
  logits: number
  stopIds: number[]
  /** Tokens that hold control characters other than a line break: the library lets them into strings, JSON does not. */
  controlIds: number[]
  /** Tokens of blank space alone. */
  blankIds: number[]
}

/**
 * The library is a CommonJS bundle in a package that says "type": "module", so neither import nor require can load it.
 * Each call gives an instance of its own: an instance whose WebAssembly has aborted is of no use any more.
 */
function loadLibrary(): typeof XGrammar {
  const require = createRequire(import.meta.url)
  const file = require.resolve('@mlc-ai/web-xgrammar')
  const module = { exports: {} as typeof XGrammar }
  const source = readFileSync(file, 'utf8').replace("await import('module')", "require('module')")
  const run = new Function('module', 'exports', 'require', '__filename', source)
  run(module, module.exports, require, file)
  return module.exports
}

/** Blank tokens in a row: enough for indentation, not enough for a model to lose itself in JSON's blank space. */
const MAX_BLANKS = 4

/** What a matcher's handle offers, below its own methods, which are asynchronous without need. */
interface MatcherHandle {
  GetNextTokenBitmask(vocabSize: number): { size(): number; get(index: number): number; delete(): void }
}

/** A grammar compiled for one vocabulary. */
export interface CompiledTokenGrammar {
  /** A matcher at the beginning; dispose() frees its WebAssembly memory. */
  start(): Promise<TokenGrammar & { dispose(): void }>
  dispose(): void
}

/** Compiles grammars over one vocabulary. Compiling blocks the thread, and the wrong grammar aborts the instance: see checker.ts. */
export class GrammarLibrary {
  readonly #library: typeof XGrammar
  readonly #vocabulary: GrammarVocabulary
  readonly #compiler: XGrammar.GrammarCompiler

  private constructor(
    library: typeof XGrammar,
    vocabulary: GrammarVocabulary,
    compiler: XGrammar.GrammarCompiler,
  ) {
    this.#library = library
    this.#vocabulary = vocabulary
    this.#compiler = compiler
  }

  static async load(vocabulary: GrammarVocabulary): Promise<GrammarLibrary> {
    const library = loadLibrary()
    const { texts, kind, logits, stopIds } = vocabulary
    const info = await library.TokenizerInfo.createTokenizerInfo(texts, kind, false, logits, stopIds)
    return new GrammarLibrary(
      library,
      vocabulary,
      await library.GrammarCompiler.createGrammarCompiler(info, false),
    )
  }

  /** @throws EngineError invalid 'invalid_schema' when the library refuses the grammar. */
  async compile(format: GrammarFormat): Promise<CompiledTokenGrammar> {
    try {
      return this.#wrap(await this.#compileFormat(format))
    } catch (cause) {
      throw new EngineError('invalid', 'invalid_schema', 'The schema cannot be turned into a grammar.', {
        cause,
      })
    }
  }

  async #compileFormat(format: GrammarFormat): Promise<XGrammar.CompiledGrammar> {
    if (format.type !== 'json_schema') return this.#compiler.compileStructuralTag(await this.#tagOf(format))
    const narrowed = narrowSchema(format.json_schema)
    if (narrowed.parts.size === 0) return this.#compiler.compileJSONSchema(JSON.stringify(narrowed.schema))
    const grammar = await this.#library.Grammar.fromEBNF(await this.#grammarText(narrowed))
    try {
      return await this.#compiler.compileGrammar(grammar)
    } finally {
      grammar.dispose()
    }
  }

  /** A structural tag in which grammars stand in place of schemas. */
  async #tagOf(format: GrammarFormat): Promise<Record<string, unknown>> {
    if (format.type === 'json_schema') {
      const narrowed = narrowSchema(format.json_schema)
      if (narrowed.parts.size === 0) return { ...format, json_schema: narrowed.schema }
      return { type: 'grammar', grammar: await this.#grammarText(narrowed) }
    }
    const each = (formats: readonly GrammarFormat[]) => Promise.all(formats.map((one) => this.#tagOf(one)))
    if (format.type === 'tag') return { ...format, content: await this.#tagOf(format.content) }
    if (format.type === 'or') return { ...format, elements: await each(format.elements) }
    return { ...format, tags: await each(format.tags) }
  }

  /** The library's grammar of a schema, with the parts that are made here. */
  async #grammarText({ schema, parts }: NarrowedSchema): Promise<string> {
    const grammar = await this.#library.Grammar.fromJSONSchema(JSON.stringify(schema))
    const text = grammar.toString()
    grammar.dispose()
    return [...parts].reduce(
      (whole, [constant, expression]) => whole.replaceAll(`"\\"${constant}\\""`, () => `(${expression})`),
      text,
    )
  }

  #wrap(compiled: XGrammar.CompiledGrammar): CompiledTokenGrammar {
    const { logits, stopIds, controlIds, blankIds } = this.#vocabulary
    const isBlank = new Set(blankIds)
    const library = this.#library
    return {
      async start() {
        const matcher = await library.GrammarMatcher.createGrammarMatcher(compiled, stopIds)
        const handle = (matcher as unknown as { handle: MatcherHandle }).handle
        const words = new Int32Array(Math.ceil(logits / 32))
        let blanks = 0
        return {
          mask() {
            if (matcher.isTerminated()) return onlyStops(words, stopIds)
            const mask = handle.GetNextTokenBitmask(logits)
            for (let at = 0; at < words.length; at++) words[at] = mask.get(at)
            mask.delete()
            forbid(words, controlIds)
            if (blanks >= MAX_BLANKS) forbid(words, blankIds)
            // Some schemas lead to a place from which nothing fits: then the answer ends.
            return words.some((word) => word !== 0) ? words : onlyStops(words, stopIds)
          },
          accept(token) {
            blanks = isBlank.has(token) ? blanks + 1 : 0
            if (!matcher.isTerminated()) matcher.acceptToken(token)
          },
          dispose: () => matcher.dispose(),
        }
      },
      dispose: () => compiled.dispose(),
    }
  }
}

function forbid(words: Int32Array, ids: readonly number[]): void {
  for (const id of ids) words[id >> 5]! &= ~(1 << (id & 31))
}

/** Behind the end of the grammar only the end of the answer may come. */
function onlyStops(words: Int32Array, stopIds: readonly number[]): Int32Array {
  words.fill(0)
  for (const id of stopIds) words[id >> 5]! |= 1 << (id & 31)
  return words
}
