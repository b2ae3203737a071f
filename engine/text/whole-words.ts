import { EngineError } from '../errors.ts'
import { WORD } from './pre-tokenizers.ts'
import { isJsonObject, type JsonObject, tokenContent } from './tokenizer-files.ts'

/** What cuts added tokens out of a text: its parts, in order. */
interface Splitter {
  split(text: string): string[]
}

/** The library's tokenizer, as far as it is changed here. */
export interface WithSplitters {
  splitter_unnormalized: Splitter
  splitter_normalized: Splitter
}

const ENDS_WITH_WORD = new RegExp(`[${WORD}]$`, 'u')
const STARTS_WITH_WORD = new RegExp(`^[${WORD}]`, 'u')

/**
 * Has a tokenizer find added tokens with `single_word` only where no letter, digit or underscore stands beside them, as the
 * tokenizers crate does (added_vocabulary.rs); the library finds them within words, too.
 */
export function keepWholeWords(tokenizer: WithSplitters, { added_tokens: added }: JsonObject): void {
  const tokens = (Array.isArray(added) ? added : []).filter(isJsonObject)
  const contents = (some: readonly JsonObject[]) => new Set(some.flatMap((one) => tokenContent(one) ?? []))
  const words = contents(tokens.filter((token) => token.single_word === true))
  if (words.size === 0) return
  const all = contents(tokens)
  for (const splitter of [tokenizer.splitter_unnormalized, tokenizer.splitter_normalized]) {
    const split = splitter.split.bind(splitter)
    splitter.split = (text) => joinPartsOfWords(split(text), words, all)
  }
}

/**
 * Parts of a text, in which tokens of `words` that stand within a word are text again.
 * @throws EngineError `untokenizable_text` where such a one stands between other tokens: alone it would be taken for itself.
 */
function joinPartsOfWords(
  parts: readonly string[],
  words: ReadonlySet<string>,
  all: ReadonlySet<string>,
): string[] {
  const joined: { text: string; isToken: boolean }[] = []
  for (const [index, part] of parts.entries()) {
    const within =
      words.has(part) &&
      (ENDS_WITH_WORD.test(parts[index - 1] ?? '') || STARTS_WITH_WORD.test(parts[index + 1] ?? ''))
    const isToken = all.has(part) && !within
    const last = joined.at(-1)
    if (last !== undefined && !last.isToken && !isToken) last.text += part
    else joined.push({ text: part, isToken })
  }
  const lost = joined.find(({ text, isToken }) => !isToken && all.has(text))
  if (lost === undefined) return joined.map(({ text }) => text)
  const message = `The added token ${JSON.stringify(lost.text)} has single_word and stands between two tokens, within a word; put a blank beside it.`
  throw new EngineError('unsupported', 'untokenizable_text', message)
}
