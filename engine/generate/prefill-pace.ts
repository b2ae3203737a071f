/** How long a chunk may keep running streams waiting, and how long cancels may wait when there are none. */
const BESIDE_STREAMS_MS = 60
const ALONE_MS = 250
const SMALLEST = 16
const LARGEST = 512
/** How much of an old measurement a new one replaces. */
const LEARNING = 0.3

/** Chooses chunks of prompts by time: as large as running streams can bear, learned from the chunks before. */
export class PrefillPace {
  /** Milliseconds per token; a guess until something was measured. */
  #perToken = 2

  /** Prompt tokens for the next run. */
  chunk(besideStreams: boolean): number {
    const tokens = (besideStreams ? BESIDE_STREAMS_MS : ALONE_MS) / this.#perToken
    return Math.max(SMALLEST, Math.min(LARGEST, Math.floor(tokens / SMALLEST) * SMALLEST))
  }

  measured(tokens: number, milliseconds: number): void {
    if (tokens < SMALLEST) return
    this.#perToken += LEARNING * (milliseconds / tokens - this.#perToken)
  }
}
