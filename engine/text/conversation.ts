/** Roles after a dataset or a request has been normalised: LLaMA-Factory's five. */
export type Role = 'user' | 'assistant' | 'system' | 'function' | 'observation'

export interface Message {
  role: Role
  content: string
  /** False for an answer that is shown but not learned (OpenAI's `weight: 0`). */
  learned?: boolean
  /** An observation's further results, of tools that were called together. */
  more?: readonly string[]
}

/**
 * One training example as text. `messages` alternates user/observation with assistant/function, and ends with a
 * learned message; `system` stands apart. Raw text for pretraining is a conversation with `text` only.
 */
export type Conversation =
  | { kind: 'chat'; system?: string; tools?: string; messages: Message[] }
  | { kind: 'text'; text: string }

/** A question, which `messages` end with, and two answers to it of which one is preferred (stages rm and dpo). */
export interface PairConversation {
  kind: 'pair'
  system?: string
  tools?: string
  messages: Message[]
  chosen: Message
  rejected: Message
}

/** A question, which `messages` end with, and an answer that was found good or bad (stage kto). */
export interface FeedbackConversation {
  kind: 'feedback'
  system?: string
  tools?: string
  messages: Message[]
  answer: Message
  desirable: boolean
  /** The answer to another question, from which the loss estimates how far the model has moved. */
  unrelated: Message
}

/** A row of a dataset, as the stage that reads it understands it. */
export type TrainConversation = (Conversation | PairConversation | FeedbackConversation) & {
  /** File and row, as in `identity.json row 3`. */
  place?: string
  /** The dataset that the row is of. */
  dataset?: string
}

/**
 * A token sequence with its labels, unshifted as Hugging Face has them: labels[i] is inputIds[i] or IGNORE_INDEX, or the end
 * token where a question begins behind an answer that has no mark at its end.
 */
export interface EncodedExample {
  inputIds: Int32Array
  labels: Int32Array
  /** The dataset rows that it was made of. */
  places?: readonly string[]
  /** Lengths of the examples that were packed into it and must not see each other. */
  packed?: readonly number[]
}

/** Two answers to the same question. */
export interface PairExample {
  chosen: EncodedExample
  rejected: EncodedExample
}

/** An answer with its verdict, and the same question with an answer that belongs to another one. */
export interface FeedbackExample {
  answer: EncodedExample
  unrelated: EncodedExample
  desirable: boolean
}

/** What one of a run's examples is depends on its stage. */
export type TrainExample = EncodedExample | PairExample | FeedbackExample

/** The token sequences of an example. */
export function sequencesOf(example: TrainExample): readonly EncodedExample[] {
  if ('chosen' in example) return [example.chosen, example.rejected]
  if ('answer' in example) return [example.answer, example.unrelated]
  return [example]
}

/** A label that is not learned. */
export const IGNORE_INDEX = -100
