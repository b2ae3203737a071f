import type { TokenLogprob } from '../../engine/generate/logprobs.ts'
import type { GenerationEvent } from '../../engine/generate/sequence.ts'
import type { OutputParser, OutputPart } from '../../engine/text/output-parser.ts'
import type { ModelTokenizer } from '../../engine/text/tokenizer.ts'
import type { AnswerEvent, ShownLogprob, ShownToken } from './protocol.ts'

/** Turns what the engine generates into the events of an answer. */
export class AnswerStream {
  readonly #parser: OutputParser
  readonly #tokenizer: ModelTokenizer
  #logprobs: ShownLogprob[] | undefined
  #reasoningTokens = 0

  constructor(parser: OutputParser, tokenizer: ModelTokenizer) {
    this.#parser = parser
    this.#tokenizer = tokenizer
  }

  take(event: GenerationEvent): AnswerEvent[] {
    if (event.type === 'start') return [event]
    if (event.type === 'finish') {
      const parts = this.#told(this.#parser.end())
      const reason = event.reason === 'stop' && this.#parser.calls > 0 ? 'tool_calls' : event.reason
      return [...this.#rest(parts), { ...event, reason, reasoningTokens: this.#reasoningTokens }]
    }
    if (event.logprobs) {
      this.#logprobs = [...(this.#logprobs ?? []), ...showLogprobs(event.logprobs, this.#tokenizer)]
    }
    const parts = this.#parser.push(event.text)
    if (this.#parser.thinking) this.#reasoningTokens += event.tokenIds?.length ?? 0
    return this.#told(parts)
  }

  /** The log-probabilities of the tokens drawn since the last part go with the next one. */
  #told(parts: OutputPart[]): AnswerEvent[] {
    const [first, ...others] = parts
    if (first === undefined || this.#logprobs === undefined) return parts
    const logprobs = this.#logprobs
    this.#logprobs = undefined
    return [{ ...first, logprobs }, ...others]
  }

  /** Tokens that left no text, such as blank space before a call, have log-probabilities too. */
  #rest(events: AnswerEvent[]): AnswerEvent[] {
    if (this.#logprobs === undefined) return events
    return [...events, ...this.#told([{ type: 'text', text: '' }])]
  }
}

/** Tokens with their texts and bytes. */
export function showLogprobs(logprobs: readonly TokenLogprob[], tokenizer: ModelTokenizer): ShownLogprob[] {
  const show = ({ id, logprob }: { id: number; logprob: number }): ShownToken => {
    const bytes = tokenizer.tokenBytes(id)
    return { id, token: Buffer.from(bytes).toString('utf8'), bytes: [...bytes], logprob: finite(logprob) }
  }
  return logprobs.map((entry) => ({ ...show(entry), top: entry.top.map(show) }))
}

/** JSON has no -Infinity; OpenAI writes -9999 for what cannot be. */
const finite = (logprob: number): number => Math.max(logprob, -9999)
