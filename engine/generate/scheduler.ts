import { setImmediate } from 'node:timers/promises'
import { EngineError } from '../errors.ts'
import { EventQueue } from './event-queue.ts'
import { type SequenceDecoder, SequenceFeed } from './feed.ts'
import { cancelledError } from './generation.ts'
import { type GenerationEvent, type GenerationRequest, Sequence } from './sequence.ts'

/** Requests that take turns; each holds a cache of its own. */
export const DEFAULT_MAX_RUNNING = 8
/** Requests that wait for one of those places. */
export const DEFAULT_MAX_QUEUE = 64

interface Job {
  readonly sequence: Sequence
  readonly feed: SequenceFeed
  readonly events: EventQueue<GenerationEvent>
}

/** What a reader gets whose request found no place; worth trying again a little later. */
export function queueFullError(waiting: number): EngineError {
  return new EngineError(
    'unavailable',
    'queue_full',
    `This model is busy and ${waiting} requests are waiting already; try again shortly.`,
  )
}

/**
 * Lets several requests share one decoder. Running requests take turns step by step, in a circle; a step is one token
 * or one chunk of a prompt. Readers see only submit(), so a batching scheduler can take this one's place.
 */
export class Scheduler {
  readonly #decoder: SequenceDecoder
  readonly #maxRunning: number
  readonly #maxQueue: number
  readonly #running: Job[] = []
  readonly #waiting: Job[] = []
  #looping = false

  constructor(decoder: SequenceDecoder, limits: { maxRunning?: number; maxQueue?: number } = {}) {
    this.#decoder = decoder
    this.#maxRunning = limits.maxRunning ?? DEFAULT_MAX_RUNNING
    this.#maxQueue = limits.maxQueue ?? DEFAULT_MAX_QUEUE
  }

  /** Requests being worked on. */
  get running(): number {
    return this.#running.length
  }

  /** Requests in the queue. */
  get waiting(): number {
    return this.#waiting.length
  }

  /**
   * Checks the request and puts it in line. The events begin with 'start' and end with 'finish', or with an error:
   * cancelled within one step of `signal`'s abort. To stop reading cancels as well.
   * @throws EngineError at once, as Sequence's constructor does, or unavailable 'queue_full'.
   */
  submit(request: GenerationRequest, signal?: AbortSignal): AsyncGenerator<GenerationEvent, void, void> {
    if (signal?.aborted) throw cancelledError()
    const sequence = new Sequence(this.#decoder.maxPositions, request)
    const job: Job = { sequence, feed: new SequenceFeed(this.#decoder, sequence), events: new EventQueue() }
    if (this.#running.length < this.#maxRunning) this.#running.push(job)
    else if (this.#waiting.length < this.#maxQueue) this.#waiting.push(job)
    else throw queueFullError(this.#waiting.length)
    job.events.push(job.sequence.startEvent)
    const cancel = () => this.#drop(job, cancelledError())
    signal?.addEventListener('abort', cancel, { once: true })
    void this.#loop()
    return job.events.read(() => {
      signal?.removeEventListener('abort', cancel)
      cancel()
    })
  }

  /** Ends every request with `error`. */
  dropAll(error: EngineError): void {
    for (const job of [...this.#running, ...this.#waiting]) this.#drop(job, error)
  }

  async #loop(): Promise<void> {
    if (this.#looping) return
    this.#looping = true
    await setImmediate() // submit() returns before any work begins
    while (this.#running.length > 0) {
      const job = this.#running[0]!
      await this.#step(job)
      // The job may have been dropped meanwhile; then another one heads the circle already.
      if (this.#running[0] === job) this.#running.push(this.#running.shift()!)
      await setImmediate() // forward blocks the event loop: let cancels and new requests in
    }
    this.#looping = false
  }

  async #step(job: Job): Promise<void> {
    const { sequence, events } = job
    try {
      const take = await job.feed.step()
      if (!this.#running.includes(job)) return
      for (const event of take()) events.push(event)
      if (sequence.finished) this.#drop(job)
    } catch (error) {
      this.#drop(job, error instanceof Error ? error : new Error(String(error)))
    }
  }

  /** Takes a job out, ends its events and gives its place to the one that waits longest. */
  #drop(job: Job, error?: Error): void {
    if (error) job.events.fail(error)
    else job.events.end()
    remove(this.#waiting, job)
    if (!remove(this.#running, job)) return
    const next = this.#waiting.shift()
    if (next) this.#running.push(next)
  }
}

function remove<T>(list: T[], item: T): boolean {
  const at = list.indexOf(item)
  if (at < 0) return false
  list.splice(at, 1)
  return true
}
