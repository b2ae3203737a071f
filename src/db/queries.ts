import { and, asc, count, desc, eq, gt, inArray, isNotNull, isNull, lt, max, or } from 'drizzle-orm'
import type {
  Job,
  JobEventRow,
  JobKind,
  JobProgress,
  JobStatus,
  NewEvent,
  NewJob,
  ProcessIdentity,
} from '../jobs/types.ts'
import type { Db } from './client.ts'
import { events, jobs } from './schema.ts'

type Changes = Partial<Omit<Job, 'position' | 'id' | 'kind' | 'createdAt'>>

/** Every statement on jobs and their events. Synchronous; each call is one transaction. */
export class JobQueries {
  readonly #db: Db

  constructor(db: Db) {
    this.#db = db
  }

  /** Inserts a queued job and its first event. */
  insert({ owner, ...job }: NewJob, event: NewEvent): Job {
    return this.#write(() => {
      const row = { ...job, ...ownerColumns(owner), createdAt: event.createdAt }
      const inserted = this.#db.insert(jobs).values(row).returning().get()
      this.#append(job.id, [event])
      return inserted
    })
  }

  find(id: string): Job | undefined {
    return this.#db.select().from(jobs).where(eq(jobs.id, id)).get()
  }

  /** Newest first; `before` is a position. */
  list(
    filter: { kind?: JobKind; before?: number; limit?: number; statuses?: readonly JobStatus[] } = {},
  ): Job[] {
    const { kind, before, limit = -1, statuses } = filter
    return this.#db
      .select()
      .from(jobs)
      .where(
        and(
          kind ? eq(jobs.kind, kind) : undefined,
          before === undefined ? undefined : lt(jobs.position, before),
          statuses ? inArray(jobs.status, [...statuses]) : undefined,
        ),
      )
      .orderBy(desc(jobs.position))
      .limit(limit)
      .all()
  }

  /** The id of the newest job after `position` that was given a folder. */
  laterIn(outputDir: string, position: number): string | undefined {
    const where = and(eq(jobs.outputDir, outputDir), gt(jobs.position, position))
    return this.#db
      .select({ id: jobs.id })
      .from(jobs)
      .where(where)
      .orderBy(desc(jobs.position))
      .limit(1)
      .get()?.id
  }

  countQueued(kind: JobKind): number {
    const where = and(eq(jobs.kind, kind), eq(jobs.status, 'queued'))
    return this.#db.select({ n: count() }).from(jobs).where(where).get()?.n ?? 0
  }

  /**
   * Takes the oldest queued job of a kind that nobody owns, or the named one that `owner` submitted, and marks it
   * running.
   */
  claim(kind: JobKind, owner: ProcessIdentity, id?: string): Job | undefined {
    return this.#write(() => {
      const mine = and(eq(jobs.ownerPid, owner.pid), eq(jobs.ownerStartedAt, owner.startedAt))
      const candidate = this.#db
        .select()
        .from(jobs)
        .where(
          and(
            eq(jobs.kind, kind),
            eq(jobs.status, 'queued'),
            id === undefined ? isNull(jobs.ownerPid) : and(eq(jobs.id, id), mine),
          ),
        )
        .orderBy(asc(jobs.position))
        .limit(1)
        .get()
      if (!candidate) return undefined
      return this.#update(candidate.id, {
        ...ownerColumns(owner),
        status: 'running',
        attempts: candidate.attempts + 1,
        startedAt: candidate.startedAt ?? new Date(),
        finishedAt: null,
        error: null,
      })
    })
  }

  /** Changes a row that is in one of `from`, and appends an event; undefined when it is in another state. */
  transition(id: string, from: readonly JobStatus[], changes: Changes, event?: NewEvent): Job | undefined {
    return this.#write(() => {
      const job = this.find(id)
      if (!job || !from.includes(job.status)) return undefined
      const updated = this.#update(id, changes)
      if (event) this.#append(id, [event])
      return updated
    })
  }

  /** Appends events to a job's history and keeps its newest progress. */
  record(id: string, added: NewEvent[], progress: JobProgress | undefined): void {
    this.#write(() => {
      if (!this.find(id)) return
      this.#append(id, added)
      if (progress) this.#update(id, { progress })
    })
  }

  /** Events after `seq`, in order. */
  eventsAfter(id: string, seq: number, limit: number): JobEventRow[] {
    return this.#db
      .select()
      .from(events)
      .where(and(eq(events.jobId, id), gt(events.seq, seq)))
      .orderBy(asc(events.seq))
      .limit(limit)
      .all()
  }

  /** Jobs that some process holds: running ones, and queued ones that their submitter wants to run itself. Oldest first. */
  owned(): Job[] {
    return this.#db
      .select()
      .from(jobs)
      .where(
        or(
          inArray(jobs.status, ['running', 'cancelling']),
          and(eq(jobs.status, 'queued'), isNotNull(jobs.ownerPid)),
        ),
      )
      .orderBy(asc(jobs.position))
      .all()
  }

  /** Removes a job at rest with its events; says whether it did. */
  delete(id: string): boolean {
    const atRest = inArray(jobs.status, ['succeeded', 'failed', 'cancelled'])
    return this.#write(
      () =>
        this.#db
          .delete(jobs)
          .where(and(eq(jobs.id, id), atRest))
          .run().changes > 0,
    )
  }

  #update(id: string, changes: Changes): Job {
    return this.#db.update(jobs).set(changes).where(eq(jobs.id, id)).returning().get()!
  }

  #append(jobId: string, added: NewEvent[]): void {
    if (added.length === 0) return
    const last = this.#db
      .select({ seq: max(events.seq) })
      .from(events)
      .where(eq(events.jobId, jobId))
      .get()
    let seq = last?.seq ?? 0
    // One statement for any number of rows.
    for (const event of added) {
      const row = { ...event, jobId, seq: ++seq }
      this.#db.insert(events).values(row).run()
    }
  }

  /** Takes the write lock first, so that what is read inside stays true until the commit. */
  #write<T>(work: () => T): T {
    return this.#db.transaction(work, { behavior: 'immediate' })
  }
}

function ownerColumns(owner: ProcessIdentity | undefined): Pick<Job, 'ownerPid' | 'ownerStartedAt'> {
  return { ownerPid: owner?.pid ?? null, ownerStartedAt: owner?.startedAt ?? null }
}
