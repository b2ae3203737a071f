import { EventEmitter } from 'node:events'
import { event } from '../jobs/event.ts'
import type { JobOutcome, JobQueue } from '../jobs/queue.ts'
import {
  isTerminal,
  type Job,
  type JobEventRow,
  type JobKind,
  type JobProgress,
  type NewEvent,
  type NewJob,
  type ProcessIdentity,
} from '../jobs/types.ts'
import { databaseError } from './client.ts'
import type { JobQueries } from './queries.ts'

const RELEASED = { ownerPid: null, ownerStartedAt: null, workerPid: null, workerStartedAt: null }

/** The queue in this machine's SQLite file. */
export class SqliteJobQueue implements JobQueue {
  readonly #queries: JobQueries
  readonly #file: string
  readonly #changes = new EventEmitter().setMaxListeners(0)

  constructor(queries: JobQueries, file: string) {
    this.#queries = queries
    this.#file = file
  }

  async submit(job: NewJob): Promise<Job> {
    return this.#change(job.id, () => this.#queries.insert(job, event('queued', 'Waiting for its turn.')))
  }

  async get(id: string): Promise<Job | undefined> {
    return this.#guard(() => this.#queries.find(id))
  }

  async list(filter: Parameters<JobQueue['list']>[0] = {}): Promise<Job[]> {
    return this.#guard(() => this.#queries.list(filter))
  }

  async countQueued(kind: JobKind): Promise<number> {
    return this.#guard(() => this.#queries.countQueued(kind))
  }

  async heirOf({ outputDir, position }: Pick<Job, 'outputDir' | 'position'>): Promise<string | undefined> {
    return this.#guard(() => this.#queries.laterIn(outputDir, position))
  }

  async claim(kind: JobKind, owner: ProcessIdentity, id?: string): Promise<Job | undefined> {
    return this.#guard(() => this.#queries.claim(kind, owner, id))
  }

  async setWorker(id: string, worker: ProcessIdentity): Promise<void> {
    const changes = { workerPid: worker.pid, workerStartedAt: worker.startedAt }
    this.#guard(() => this.#queries.transition(id, ['running', 'cancelling'], changes))
  }

  async record(id: string, events: NewEvent[], progress?: JobProgress): Promise<void> {
    this.#change(id, () => this.#queries.record(id, events, progress))
  }

  async settle(id: string, outcome: JobOutcome): Promise<Job | undefined> {
    const finished = outcome.status === 'queued' ? {} : { finishedAt: new Date() }
    const { changes, reported } = describe(outcome)
    return this.#change(id, () =>
      this.#queries.transition(
        id,
        ['queued', 'running', 'cancelling'],
        { ...RELEASED, ...finished, ...changes },
        reported,
      ),
    )
  }

  async requestCancel(id: string): Promise<Job | undefined> {
    return this.#change(id, () => {
      const job = this.#queries.find(id)
      if (!job || isTerminal(job.status)) return undefined
      const cancelled = event('cancelled', 'Cancelled before it started.')
      return (
        this.#queries.transition(
          id,
          ['queued'],
          { ...RELEASED, status: 'cancelled', finishedAt: new Date() },
          cancelled,
        ) ?? this.#queries.transition(id, ['running', 'cancelling'], { status: 'cancelling' })
      )
    })
  }

  async resume(id: string): Promise<Job | undefined> {
    const changes = { status: 'queued', error: null, finishedAt: null, crashes: 0 } as const
    const queued = event('queued', 'Waiting to go on from its last checkpoint.')
    return this.#change(id, () => this.#queries.transition(id, ['failed', 'cancelled'], changes, queued))
  }

  async owned(): Promise<Job[]> {
    return this.#guard(() => this.#queries.owned())
  }

  async eventsAfter(id: string, seq: number, limit: number): Promise<JobEventRow[]> {
    return this.#guard(() => this.#queries.eventsAfter(id, seq, limit))
  }

  async delete(id: string): Promise<boolean> {
    return this.#change(id, () => this.#queries.delete(id))
  }

  watch(listener: (id: string) => void): () => void {
    this.#changes.on('change', listener)
    return () => this.#changes.off('change', listener)
  }

  #change<T>(id: string, work: () => T): T {
    const result = this.#guard(work)
    this.#changes.emit('change', id)
    return result
  }

  #guard<T>(work: () => T): T {
    try {
      return work()
    } catch (error) {
      throw databaseError(error, this.#file)
    }
  }
}

function describe(outcome: JobOutcome): { changes: Partial<Job>; reported: NewEvent } {
  switch (outcome.status) {
    case 'succeeded':
      return {
        changes: { status: 'succeeded', result: outcome.result, error: null },
        reported: event('succeeded', 'Finished.', outcome.result),
      }
    case 'failed':
      return {
        changes: { status: 'failed', error: outcome.error },
        reported: event('failed', outcome.error.message, { error: outcome.error }),
      }
    case 'cancelled':
      return { changes: { status: 'cancelled' }, reported: event('cancelled', outcome.message) }
    case 'queued':
      return {
        changes: { status: 'queued', crashes: outcome.crashes },
        reported: event('queued', outcome.message),
      }
  }
}
