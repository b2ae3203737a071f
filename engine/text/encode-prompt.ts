import { EngineError } from '../errors.ts'
import type { ModelTokenizer } from './tokenizer.ts'

/** Characters per token that are tried first: common text has about four. */
const PROBE_CHARACTERS = 8
/** Longer texts are refused unread: to tokenize them would hold up everybody else. */
export const MAX_TEXT_CHARACTERS = 1_000_000

/**
 * Token ids of a prompt, and a quick refusal where it cannot fit: tokenizing takes the thread, so a text that is too long
 * is not tokenized to its end.
 * @throws EngineError too_large 'context_length_exceeded'.
 */
export function encodePrompt(
  tokenizer: Pick<ModelTokenizer, 'encode'>,
  text: string,
  options: { addSpecialTokens: boolean; maxTokens: number; param: string },
): Int32Array {
  const { addSpecialTokens, maxTokens, param } = options
  const probe = maxTokens * PROBE_CHARACTERS
  if (text.length > probe) {
    const count = tokenizer.encode(text.slice(0, probe)).length
    if (count > maxTokens || text.length > MAX_TEXT_CHARACTERS) {
      const message = `The prompt has ${text.length} characters, which are more than the ${maxTokens} tokens that this model's context holds.`
      throw new EngineError('too_large', 'context_length_exceeded', message, { param })
    }
  }
  return tokenizer.encode(text, { addSpecialTokens })
}
