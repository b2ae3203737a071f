/** How long a chunk and the streams' next step may take together, and how long cancels may wait when there are none. */
const BESIDE_STREAMS_MS = 65
const ALONE_MS = 250
const SMALLEST = 16
const LARGEST = 512
/** What a run costs by itself, in tokens: of small chunks much of the time goes into reading the weights. */
const RUN_COST = 16
/** How much of an old measurement a new one replaces. */
const LEARNING = 0.3

/** Chooses chunks of prompts by time: as large as running streams can bear, learned from the chunks before. */
export class PrefillPace {
  /** Milliseconds per token; a guess until something was measured. */
  #perToken = 1.5
  /** Milliseconds of the streams' last step. */
  #step = 0

  /**
   * Prompt tokens for the next run, of `pending` that are left. Those are cut evenly: a short last chunk would cost
   * nearly as much as a whole one.
   */
  chunk(pending: number, besideStreams: boolean): number {
    const affordable = (besideStreams ? BESIDE_STREAMS_MS - this.#step : ALONE_MS) / this.#perToken - RUN_COST
    const largest = Math.max(SMALLEST, Math.min(LARGEST, Math.floor(affordable)))
    return Math.ceil(pending / Math.ceil(pending / largest))
  }

  /** A step of the running streams took this long. */
  stepped(milliseconds: number): void {
    this.#step = milliseconds
  }

  /** A chunk took this long. */
  measured(tokens: number, milliseconds: number): void {
    this.#perToken += LEARNING * (milliseconds / (tokens + RUN_COST) - this.#perToken)
  }
}
