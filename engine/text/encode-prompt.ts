import { EngineError } from '../errors.ts'
import { encodePieces, type Piece, pieceText } from './pieces.ts'
import type { ModelTokenizer } from './tokenizer.ts'

/** Characters per token that are tried first: common text has about four. */
const PROBE_CHARACTERS = 8
/** Longer texts are refused unread: to tokenize them would hold up everybody else. */
export const MAX_TEXT_CHARACTERS = 1_000_000

/**
 * Token ids of a prompt, text or pieces that are tokenized apart, and a quick refusal where it cannot fit: tokenizing takes the thread, so a text that is too long
 * is not tokenized to its end.
 * @throws EngineError too_large 'context_length_exceeded'.
 */
export function encodePrompt(
  tokenizer: Pick<ModelTokenizer, 'encode' | 'tokenId'>,
  prompt: string | readonly Piece[],
  options: { addSpecialTokens: boolean; maxTokens: number; param: string },
): Int32Array {
  const { addSpecialTokens, maxTokens, param } = options
  const text = typeof prompt === 'string' ? prompt : pieceText(prompt)
  const probe = maxTokens * PROBE_CHARACTERS
  if (text.length > probe) {
    const count = tokenizer.encode(text.slice(0, probe)).length
    if (count > maxTokens || text.length > MAX_TEXT_CHARACTERS) {
      const message = `The prompt has ${text.length} characters, which are more than the ${maxTokens} tokens that this model's context holds.`
      throw new EngineError('too_large', 'context_length_exceeded', message, { param })
    }
  }
  if (typeof prompt === 'string') return tokenizer.encode(prompt, { addSpecialTokens })
  return encodePieces(prompt, tokenizer)
}
