/** Roles after a dataset or a request has been normalised: LLaMA-Factory's five. */
export type Role = 'user' | 'assistant' | 'system' | 'function' | 'observation'

export interface Message {
  role: Role
  content: string
}

/**
 * One training example as text. `messages` alternates user/observation with assistant/function, and ends with a
 * learned message; `system` stands apart. Raw text for pretraining is a conversation with `text` only.
 */
export type Conversation =
  | { kind: 'chat'; system?: string; tools?: string; messages: Message[] }
  | { kind: 'text'; text: string }

/** A token sequence with its labels, unshifted as Hugging Face has them: labels[i] is inputIds[i] or IGNORE_INDEX. */
export interface EncodedExample {
  inputIds: Int32Array
  labels: Int32Array
}

/** A label that is not learned. */
export const IGNORE_INDEX = -100
