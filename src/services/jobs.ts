import { randomBytes } from 'node:crypto'
import { EngineError } from '../../engine/errors.ts'
import type { JobError, JobStatus } from '../../routes/schemas/jobs.ts'
import type { JobEvent, Jobs, PageQuery } from '../../routes/services.ts'
import { followEvents } from '../jobs/follow.ts'
import { isAlive } from '../jobs/process-identity.ts'
import { ID_PREFIX, isTerminal, type Job, type JobEventRow, type JobKind } from '../jobs/types.ts'
import type { ServiceContext } from './context.ts'

/** A fresh id: `run-`, `merge-`, `export-` or `import-` and twelve hexadecimal digits. */
export function newJobId(kind: JobKind): string {
  return `${ID_PREFIX[kind]}-${randomBytes(6).toString('hex')}`
}

/** What routes offer for every kind of job. */
export function jobService<T>(
  { queue, closing }: ServiceContext,
  kind: JobKind,
  toWire: (job: Job) => T,
): Jobs<T> {
  const find = (id: string) => findJob(queue, kind, id)
  return {
    async list({ after, limit }: PageQuery) {
      const before = after === undefined ? undefined : (await cursor(queue, kind, after)).position
      const jobs = await queue.list({ kind, before, limit: limit + 1 })
      return { data: jobs.slice(0, limit).map(toWire), hasMore: jobs.length > limit }
    },
    async get(id) {
      return toWire(await find(id))
    },
    async *events(id, after, signal) {
      await find(id)
      const ending = AbortSignal.any([signal, closing])
      for await (const row of followEvents(queue, id, after, ending)) yield eventToWire(row)
    },
    async cancel(id) {
      const job = await find(id)
      const asked = await queue.requestCancel(id)
      if (!asked)
        throw conflict('job_finished', `${id} is ${job.status} already; there is nothing to cancel.`)
      if (
        asked.status !== 'cancelling' ||
        isAlive({ pid: asked.ownerPid, startedAt: asked.ownerStartedAt })
      ) {
        return toWire(asked)
      }
      // Nobody is left to stop it: it belonged to a process that died.
      const message = 'Cancelled; the process that ran it had died.'
      return toWire((await queue.settle(id, { status: 'cancelled', message })) ?? asked)
    },
  }
}

type Queue = ServiceContext['queue']

/** @throws EngineError `not_found` for an unknown id and for one of another kind. */
export async function findJob(queue: Queue, kind: JobKind, id: string): Promise<Job> {
  const job = await queue.get(id)
  if (job?.kind === kind) return job
  const noun = {
    train: 'training run',
    merge: 'merge',
    export: 'export',
    import: 'import',
    evaluation: 'evaluation',
  }[kind]
  throw new EngineError('not_found', `${ID_PREFIX[kind]}_not_found`, `There is no ${noun} ${show(id)}.`, {
    param: 'id',
  })
}

async function cursor(queue: Queue, kind: JobKind, after: string): Promise<Job> {
  const job = await queue.get(after)
  if (job?.kind === kind) return job
  throw new EngineError('invalid', 'unknown_cursor', `after: ${show(after)} is not in this list.`, {
    param: 'after',
  })
}

/** Refuses a new job when too many of its kind wait already. */
export async function checkQueueSpace({ queue, settings }: ServiceContext, kind: JobKind): Promise<void> {
  const waiting = await queue.countQueued(kind)
  if (waiting < settings.limits.queuedJobs) return
  throw new EngineError(
    'unavailable',
    'queue_full',
    `${waiting} jobs of this kind wait already; the limit is ${settings.limits.queuedJobs}. Try again later.`,
  )
}

/** Removes a job at rest. @throws EngineError `conflict` when it is queued or running. */
export function checkAtRest(job: Job): void {
  if (isTerminal(job.status)) return
  throw conflict('job_active', `${job.id} is ${job.status}; cancel it first.`)
}

export function conflict(code: string, message: string, param?: string): EngineError {
  return new EngineError('conflict', code, message, { param })
}

/** The fields that all kinds share on the wire. */
export function jobFieldsOf(job: Job): {
  status: JobStatus
  created_at: number
  started_at: number | null
  finished_at: number | null
  error: JobError | null
} {
  const { error } = job
  return {
    status: job.status,
    created_at: unixTime(job.createdAt),
    started_at: job.startedAt && unixTime(job.startedAt),
    finished_at: job.finishedAt && unixTime(job.finishedAt),
    error: error && { code: error.code, message: error.message, param: error.param },
  }
}

export function unixTime(date: Date): number {
  return Math.floor(date.getTime() / 1000)
}

function eventToWire(row: JobEventRow): JobEvent {
  return {
    id: row.seq,
    object: 'job.event',
    type: row.type,
    created_at: unixTime(row.createdAt),
    message: row.message,
    data: row.data,
  }
}

function show(id: string): string {
  return JSON.stringify(id.slice(0, 120))
}
