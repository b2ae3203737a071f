import type { JobEventType, JobStatus } from '../../routes/schemas/jobs.ts'

export type { JobEventType, JobStatus }

export const JOB_KINDS = ['train', 'merge', 'export', 'import', 'evaluation'] as const

export type JobKind = (typeof JOB_KINDS)[number]

/** The first part of a job's id. */
export const ID_PREFIX: Record<JobKind, string> = {
  train: 'run',
  merge: 'merge',
  export: 'export',
  import: 'import',
  evaluation: 'eval',
}

/** The fields of an event, by its type; numbers and short texts. */
export type JobEventData = Record<string, unknown>

/** Where a job stands, as its task last reported it; the fields depend on the kind. */
export type JobProgress = Record<string, unknown>

/** Why a job failed, in the error's own terms. */
export interface JobFailure {
  kind: string
  code: string
  message: string
  param: string | null
}

/** A process, told apart from a later one with the same id. */
export interface ProcessIdentity {
  pid: number
  startedAt: string
}

export interface Job {
  position: number
  id: string
  kind: JobKind
  status: JobStatus
  request: Record<string, unknown>
  resolved: Record<string, unknown>
  outputDir: string
  progress: JobProgress | null
  result: Record<string, unknown> | null
  error: JobFailure | null
  ownerPid: number | null
  ownerStartedAt: string | null
  workerPid: number | null
  workerStartedAt: string | null
  /** How often the job was started. */
  attempts: number
  /** How often in a row its supervisor died while it ran. */
  crashes: number
  createdAt: Date
  startedAt: Date | null
  finishedAt: Date | null
}

/** What a submitter decides; the queue fills in the rest. */
export type NewJob = Pick<Job, 'kind' | 'request' | 'resolved' | 'outputDir'> & {
  id: string
  /** Set when the submitting process will run the job itself. */
  owner?: ProcessIdentity
}

/** An event before it has its place in the job's history. */
export interface NewEvent {
  type: JobEventType
  message: string
  data: JobEventData
  createdAt: Date
}

export interface JobEventRow extends NewEvent {
  jobId: string
  seq: number
}

export const ACTIVE_STATUSES = ['queued', 'running', 'cancelling'] as const satisfies readonly JobStatus[]

/** Whether a job is at rest: nothing more happens to it unless somebody asks. */
export function isTerminal(status: JobStatus): boolean {
  return status === 'succeeded' || status === 'failed' || status === 'cancelled'
}
