import type { JobQueue } from './queue.ts'
import type { JobProgress, NewEvent } from './types.ts'

/** A run may report hundreds of steps a second; each flush is one transaction and one sync to disk. */
const FLUSH_MS = 100

/** While the database cannot take them (a full disk), events wait here, up to this many. */
const MAX_WAITING = 20_000

const RETRY_MS = 1000

/** Collects one job's events and writes them in batches, in order. */
export class EventBuffer {
  readonly #queue: JobQueue
  readonly #jobId: string
  readonly #onError: (error: unknown) => void
  #waiting: NewEvent[] = []
  #progress: JobProgress | undefined
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()

  constructor(
    queue: JobQueue,
    jobId: string,
    progress: JobProgress | null,
    onError: (error: unknown) => void,
  ) {
    this.#queue = queue
    this.#jobId = jobId
    this.#progress = progress ?? undefined
    this.#onError = onError
  }

  add(event: NewEvent): void {
    this.#waiting.push(event)
    if (event.type === 'progress') this.#progress = { ...this.#progress, ...event.data }
    if (this.#waiting.length > MAX_WAITING) this.#waiting.splice(0, this.#waiting.length - MAX_WAITING)
    this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS)
  }

  /** Writes what waits; what cannot be written stays for the next attempt. */
  flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#writing = this.#writing.then(() => this.#write())
    return this.#writing
  }

  /** Writes what waits and stops retrying. */
  async close(): Promise<void> {
    await this.flush()
    clearTimeout(this.#timer)
  }

  async #write(): Promise<void> {
    const batch = this.#waiting
    if (batch.length === 0) return
    this.#waiting = []
    try {
      await this.#queue.record(this.#jobId, batch, this.#progress)
    } catch (error) {
      this.#waiting = [...batch, ...this.#waiting]
      this.#timer ??= setTimeout(() => void this.flush(), RETRY_MS)
      this.#onError(error)
    }
  }
}
