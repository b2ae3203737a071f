/**
 * A part of a format: text with `{content}` in the place of a message. Of a list each part is tokenized by itself;
 * `{bos}`, `{eos}` and `{token:NAME}` alone are one token.
 */
export type Slots = string | readonly string[]

/** What most reasoning models put around a thought. */
export const THINK = ['<think>\n', '\n</think>\n\n'] as const

/** A chat format by its parts, as LLaMA-Factory names it. A question's part ends where the answer begins. */
export interface Format {
  /** Before everything. */
  prefix?: Slots
  /** The content alone when left out. */
  system?: Slots
  /** The system text stands inside the first question (`inFirst`), or before it as a part of its own. */
  systemPlace?: 'own' | 'inFirst'
  defaultSystem?: string
  /** The content alone when left out. */
  user?: Slots
  /** The content and the end token when left out; the content alone with learnsEnd. */
  assistant?: Slots
  /** An answer that calls tools; as any answer when left out. */
  calls?: Slots
  /** A tool's result; written as a question when left out. */
  observation?: Slots
  /** Tokens that end an answer besides the model's own end token. */
  stops?: readonly string[]
  /** Nothing marks an answer's end (LLaMA-Factory's efficient_eos): see ChatTemplate.learnsEnd. */
  learnsEnd?: true
  /** The first stop takes the end token's place (replace_eos): what ends a raw text in stage pt. */
  replacesEnd?: true
  /** What ends a raw text where that is another. */
  textEnd?: string
  /** How tools are listed and called, a key of TOOL_WORDS; `default` when left out. */
  tools?: string
  /** Tools stand in these words as they were given, instead. */
  rawTools?: readonly [open: string, close: string]
  /** The format is of a reasoning model (ReasoningTemplate), whose thoughts stand between these words. */
  thoughts?: readonly [open: string, close: string]
  /** What stands for no thought, where it is not both words. */
  emptyThought?: string
}
