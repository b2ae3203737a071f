import type { Decoder } from './decoder.ts'
import type { KvCache } from './kv-cache.ts'
import type { GenerationEvent, Sequence } from './sequence.ts'

/** Prompt tokens per forward call: between two chunks a cancel is noticed and other requests get their turn. */
export const PREFILL_CHUNK = 256

/** What generation needs of a decoder. */
export type SequenceDecoder = Pick<Decoder, 'maxPositions' | 'createCache' | 'forward'>

/** Feeds one sequence to a decoder step by step: chunks of the prompt, then one token at a time. */
export class SequenceFeed {
  readonly #decoder: SequenceDecoder
  readonly #sequence: Sequence
  #cache: KvCache | undefined
  #fed = 0

  constructor(decoder: SequenceDecoder, sequence: Sequence) {
    this.#decoder = decoder
    this.#sequence = sequence
  }

  /** Runs the next step and returns a function that takes its result: what to tell the reader. */
  async step(): Promise<() => GenerationEvent[]> {
    const { prompt, adapter } = this.#sequence.request
    this.#cache ??= this.#decoder.createCache(prompt.length)
    const tokens =
      this.#fed < prompt.length
        ? prompt.subarray(this.#fed, this.#fed + PREFILL_CHUNK)
        : Int32Array.of(this.#sequence.lastToken)
    const logits = await this.#decoder.forward(tokens, this.#cache, adapter)
    this.#fed += tokens.length
    return () => (this.#fed < prompt.length ? [] : this.#sequence.accept(logits))
  }
}
