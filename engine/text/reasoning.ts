import { possibleBeginning } from './marks.ts'

export const THINK_OPEN = '<think>'
export const THINK_CLOSE = '</think>'

/** Where an answer stands in relation to its reasoning when it begins. */
export type ReasoningStart = 'thinking' | 'undecided' | 'none'

/** How an answer to this prompt begins, where `thinks` says that it may think: templates of reasoning models may open or close the reasoning themselves. */
export function reasoningStart(thinks: boolean, prompt: string): ReasoningStart {
  if (!thinks) return 'none'
  const end = prompt.trimEnd()
  if (end.endsWith(THINK_OPEN)) return 'thinking'
  return end.endsWith(THINK_CLOSE) ? 'none' : 'undecided'
}

/** Parts growing text into the reasoning between <think> and </think> and the answer behind it. */
export class ReasoningSplitter {
  #state: ReasoningStart | 'answer'
  #held = ''
  /** Whether anything of the current part was handed out: blank space before it is dropped. */
  #begun = false

  constructor(start: ReasoningStart) {
    this.#state = start
  }

  get thinking(): boolean {
    return this.#state === 'thinking'
  }

  push(text: string): { reasoning: string; answer: string } {
    if (this.#state === 'none') return { reasoning: '', answer: text }
    this.#held += text
    if (this.#state === 'undecided') this.#decide()
    const reasoning = this.#state === 'thinking' ? this.#takeReasoning() : ''
    const answer = this.#state === 'answer' ? this.#trimStart(this.#take()) : ''
    return { reasoning, answer }
  }

  /** What was held back, once no more can come. */
  end(): { reasoning: string; answer: string } {
    const rest = this.#take()
    return this.#state === 'thinking' ? { reasoning: rest, answer: '' } : { reasoning: '', answer: rest }
  }

  #decide(): void {
    const text = this.#held.trimStart()
    if (text.startsWith(THINK_OPEN)) {
      this.#state = 'thinking'
      this.#held = text.slice(THINK_OPEN.length)
    } else if (!THINK_OPEN.startsWith(text)) {
      this.#state = 'answer'
      this.#begun = true
    }
  }

  #takeReasoning(): string {
    const at = this.#held.indexOf(THINK_CLOSE)
    if (at < 0) {
      const safe = this.#held.length - possibleBeginning(this.#held, THINK_CLOSE)
      const reasoning = this.#held.slice(0, safe)
      this.#held = this.#held.slice(safe)
      return this.#trimStart(reasoning)
    }
    const reasoning = this.#trimStart(this.#held.slice(0, at))
    this.#held = this.#held.slice(at + THINK_CLOSE.length)
    this.#state = 'answer'
    this.#begun = false
    return reasoning
  }

  #take(): string {
    const text = this.#held
    this.#held = ''
    return text
  }

  #trimStart(text: string): string {
    if (this.#begun) return text
    const trimmed = text.trimStart()
    this.#begun = trimmed !== ''
    return trimmed
  }
}
