import type { ModelTokenizer } from './tokenizer.ts'

/** What a decoder shows for bytes that are not (yet) a character. */
const REPLACEMENT = '\uFFFD'
/** No character spans this many tokens: what is held back longer is not UTF-8 and is let go. */
const MAX_HELD_TOKENS = 32

/** Turns a stream of token ids into text as it arrives. */
export interface Detokenizer {
  /** The text that this token completes; empty while the tail may still be half a character. */
  push(tokenId: number): string
  /** What was held back. The detokenizer starts afresh afterwards. */
  flush(): string
}

/**
 * An incremental detokenizer. Decoding a token alone loses what depends on its neighbours (multi-token characters,
 * leading spaces), so each push decodes a short window that starts at the previous clean boundary, and emits what the
 * window gained. A tail of U+FFFD is held back. The cost of a push does not grow with the length of the text.
 */
export function createDetokenizer(
  tokenizer: Pick<ModelTokenizer, 'decode'>,
  options: { skipSpecialTokens?: boolean } = {},
): Detokenizer {
  let window: number[] = []
  /** Index into `window` of the last clean boundary: tokens before it are context and already emitted. */
  let boundary = 0
  /** Characters of the decoded window that are already emitted. */
  let emitted = 0

  const decode = () => tokenizer.decode(window, options)

  return {
    push(tokenId) {
      window.push(tokenId)
      const text = decode()
      const held = window.length - boundary
      if (text.endsWith(REPLACEMENT) && held < MAX_HELD_TOKENS) return ''
      const delta = text.slice(emitted)
      window = window.slice(boundary)
      boundary = window.length
      emitted = decode().length
      return delta
    },
    flush() {
      const delta = decode().slice(emitted)
      window = []
      boundary = 0
      emitted = 0
      return delta
    },
  }
}
