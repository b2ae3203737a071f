import { EventBuffer } from './event-buffer.ts'
import type { ChildEnd } from './job-process.ts'
import { type JobPlaces, JobRun, jobsOnCpu } from './job-run.ts'
import type { JobOutcome, JobQueue } from './queue.ts'
import { JOB_KINDS, type Job, type JobKind, type ProcessIdentity } from './types.ts'

export interface SupervisorOptions {
  queue: JobQueue
  /** The process that the claimed rows belong to. */
  owner: ProcessIdentity
  /** Jobs of each kind at the same time. */
  concurrency: Record<JobKind, number>
  cancelGraceMs: number
  /** Where a job's running log lies. */
  logFile(job: Job): string
  /** The child's module. */
  entry: URL
  /** Where jobs compute; on the CPU when left out. */
  places?: JobPlaces
  /** Told of troubles that no job can be blamed for, such as a full disk. */
  onError?(error: unknown): void
  onSettled?(job: Job): void
}

/** How soon jobs and cancellations that other processes put into the table are seen. */
const POLL_MS = 1000

const RETRY_MS = 1000

interface Running {
  job: Job
  run: JobRun
  done: Promise<void>
}

/** Takes jobs from the queue and runs each in a child process of its own. */
export class JobSupervisor {
  readonly #options: Required<SupervisorOptions>
  readonly #running = new Map<string, Running>()
  #poll: NodeJS.Timeout | undefined
  #unwatch: (() => void) | undefined
  #pass: Promise<void> = Promise.resolve()
  #claiming = false
  #draining = false

  constructor(options: SupervisorOptions) {
    this.#options = {
      places: jobsOnCpu,
      onError: () => {},
      onSettled: () => {},
      ...options,
    }
  }

  get running(): Job[] {
    return [...this.#running.values()].map(({ job }) => job)
  }

  /** Starts to claim unowned jobs, oldest first, until `drain`. */
  start(): void {
    this.#claiming = true
    this.#unwatch = this.#options.queue.watch(() => void this.#look())
    this.#poll = setInterval(() => void this.#look(), POLL_MS)
    void this.#look()
  }

  /** Claims and runs the one job that this process submitted for itself; returns it at rest. */
  async runOwn(id: string): Promise<Job> {
    const { queue, owner } = this.#options
    const submitted = await queue.get(id)
    const job = submitted && (await queue.claim(submitted.kind, owner, id))
    if (!job) throw new Error(`${id} is not this process's to run.`)
    this.#unwatch = queue.watch(() => void this.#stopCancelled())
    this.#poll = setInterval(() => void this.#stopCancelled(), POLL_MS)
    try {
      this.#launch(job)
      await this.#running.get(id)?.done
      return (await queue.get(id)) ?? job
    } finally {
      this.#stopLooking()
    }
  }

  /** Claims no more; stops what runs, with a checkpoint, and puts it back into the queue for the next start. */
  async drain(): Promise<void> {
    this.#draining = true
    this.#claiming = false
    this.#stopLooking()
    await this.#pass
    for (const { run } of this.#running.values()) run.stop()
    await Promise.all([...this.#running.values()].map(({ done }) => done))
  }

  #stopLooking(): void {
    clearInterval(this.#poll)
    this.#unwatch?.()
  }

  /** One pass at a time; a change that comes during a pass starts another. */
  #look(): Promise<void> {
    this.#pass = this.#pass.then(async () => {
      try {
        await this.#stopCancelled()
        await this.#claim()
      } catch (error) {
        this.#options.onError(error)
      }
    })
    return this.#pass
  }

  async #claim(): Promise<void> {
    const { queue, owner, concurrency } = this.#options
    for (const kind of JOB_KINDS) {
      while (this.#claiming && this.#count(kind) < concurrency[kind]) {
        const job = await queue.claim(kind, owner)
        if (!job) break
        this.#launch(job)
      }
    }
  }

  #count(kind: JobKind): number {
    return this.running.filter((job) => job.kind === kind).length
  }

  async #stopCancelled(): Promise<void> {
    for (const { job, run } of this.#running.values()) {
      const row = await this.#options.queue.get(job.id)
      if (!row || row.status === 'cancelling') run.stop()
    }
  }

  #launch(job: Job): void {
    const { queue, entry, cancelGraceMs, logFile, places, onError } = this.#options
    const buffer = new EventBuffer(queue, job.id, job.progress, onError)
    const run = new JobRun({
      job,
      places,
      entry,
      logFile: logFile(job),
      graceMs: cancelGraceMs,
      onStarted: (worker) => void queue.setWorker(job.id, worker).catch(onError),
      onEvent: (reported) => buffer.add(reported),
    })
    const done = run.ended.then((end) => this.#settle(job, end, buffer))
    this.#running.set(job.id, { job, run, done })
  }

  async #settle(job: Job, end: ChildEnd, buffer: EventBuffer): Promise<void> {
    await buffer.close()
    const settled = await this.#persist(job, end)
    this.#running.delete(job.id)
    if (settled) this.#options.onSettled(settled)
    if (this.#claiming) void this.#look()
  }

  /** An outcome must reach the table: while the disk is full it is tried again, unless the process is told to end. */
  async #persist(job: Job, end: ChildEnd): Promise<Job | undefined> {
    for (;;) {
      try {
        const row = await this.#options.queue.get(job.id)
        return await this.#options.queue.settle(job.id, this.#outcome(end, row?.status === 'cancelling'))
      } catch (error) {
        this.#options.onError(error)
        if (this.#draining) return undefined
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
      }
    }
  }

  #outcome(end: ChildEnd, cancelled: boolean): JobOutcome {
    if (end.type === 'succeeded') return { status: 'succeeded', result: end.result }
    if (end.type === 'failed') return { status: 'failed', error: end.error }
    if (this.#draining && !cancelled) {
      return {
        status: 'queued',
        message: 'Stopped with the server; goes on when it starts again.',
        crashes: 0,
      }
    }
    const message =
      end.type === 'stopped'
        ? `Cancelled. ${end.message}`.trim()
        : 'Cancelled; it did not stop in time and was ended. The last checkpoint stays.'
    return { status: 'cancelled', message }
  }
}
