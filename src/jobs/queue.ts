import type {
  Job,
  JobEventRow,
  JobFailure,
  JobKind,
  JobProgress,
  JobStatus,
  NewEvent,
  NewJob,
  ProcessIdentity,
} from './types.ts'

/** How a job came to rest, or back into the queue. */
export type JobOutcome =
  | { status: 'succeeded'; result: Record<string, unknown> }
  | { status: 'failed'; error: JobFailure }
  | { status: 'cancelled'; message: string }
  | { status: 'queued'; message: string; crashes: number }

/**
 * Where jobs wait and what became of them. Nothing here assumes that submitter, runner and reader are one process or
 * one machine; `watch` is only a hint that makes local readers faster than their polling.
 */
export interface JobQueue {
  submit(job: NewJob): Promise<Job>
  get(id: string): Promise<Job | undefined>
  list(filter?: {
    kind?: JobKind
    before?: number
    limit?: number
    statuses?: readonly JobStatus[]
  }): Promise<Job[]>
  countQueued(kind: JobKind): Promise<number>
  /**
   * The id of the newest later job that was given the same folder, by overwrite_output_dir or to go on from there:
   * what lies in it is that job's. Undefined while it is this job's own.
   */
  heirOf(job: Pick<Job, 'outputDir' | 'position'>): Promise<string | undefined>
  /** The oldest queued job of a kind that nobody owns, or the named one of this owner, now running. */
  claim(kind: JobKind, owner: ProcessIdentity, id?: string): Promise<Job | undefined>
  setWorker(id: string, worker: ProcessIdentity): Promise<void>
  /** Appends events; `progress` replaces the job's newest one. */
  record(id: string, events: NewEvent[], progress?: JobProgress): Promise<void>
  settle(id: string, outcome: JobOutcome): Promise<Job | undefined>
  /** A queued job is cancelled at once, a running one is marked for its owner. Undefined when it is at rest. */
  requestCancel(id: string): Promise<Job | undefined>
  /** Queues a failed or cancelled job again; undefined in every other state. */
  resume(id: string): Promise<Job | undefined>
  /** Running jobs, and queued ones that their submitter keeps for itself. Oldest first. */
  owned(): Promise<Job[]>
  eventsAfter(id: string, seq: number, limit: number): Promise<JobEventRow[]>
  /** Removes a job at rest with its events. */
  delete(id: string): Promise<boolean>
  /** Calls back after something happened to a job in this process; returns the unsubscriber. */
  watch(listener: (id: string) => void): () => void
}
