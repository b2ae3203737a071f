import { isJsonObject, type JsonObject } from './tokenizer-files.ts'

/** What GPT-2 cuts text into, which ByteLevel does where nothing has been cut before it. */
const GPT2_WORDS = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/** What `\w` stands for in Rust's regex crate: Oniguruma's, which Split has, also takes ² and ½. */
export const WORD = '\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200c\\u200d'

/** Rust's is_ascii_punctuation, and Unicode's class P. */
const PUNCTUATION = '!-/:-@\\[-`{-~\\p{P}'

/**
 * tokenizer.json's pre_tokenizer with the same cuts, written as `Split` where the JavaScript library cuts otherwise than the
 * tokenizers crate: its Digits knows ASCII's digits alone (½, ² and ٣ are numbers too), its Whitespace ASCII's letters, its
 * Punctuation joins marks, and its ByteLevel has JavaScript's white space. `Split` follows the crate's expressions.
 */
export function exactPreTokenizer(preTokenizer: unknown): unknown {
  if (!isJsonObject(preTokenizer)) return preTokenizer
  const { type, pretokenizers, behavior, individual_digits: single } = preTokenizer
  switch (type) {
    case 'Sequence':
      return Array.isArray(pretokenizers)
        ? { ...preTokenizer, pretokenizers: pretokenizers.map(exactPreTokenizer) }
        : preTokenizer
    case 'Digits':
      return match(`\\P{N}+|\\p{N}${single === true ? '' : '+'}`)
    case 'Whitespace':
      return match(`[${WORD}]+|[^${WORD}\\s]+`)
    case 'Punctuation':
      if (behavior === 'Contiguous') return match(`[^${PUNCTUATION}]+|[${PUNCTUATION}]+`)
      if (behavior !== undefined && behavior !== 'Isolated') return preTokenizer
      return match(`[^${PUNCTUATION}]+|[${PUNCTUATION}]`)
    case 'ByteLevel':
      return exactByteLevel(preTokenizer)
    default:
      return preTokenizer
  }
}

/** A space that is put before each piece is put there before the piece is cut, which two steps cannot do. */
function exactByteLevel(byteLevel: JsonObject): JsonObject {
  if (byteLevel.use_regex === false || byteLevel.add_prefix_space === true) return byteLevel
  return { type: 'Sequence', pretokenizers: [match(GPT2_WORDS), { ...byteLevel, use_regex: false }] }
}

/** The pieces that an expression matches; what lies between them is dropped. The library does this fastest. */
function match(regex: string): JsonObject {
  return { type: 'Split', pattern: { Regex: regex }, behavior: 'Removed', invert: true }
}
