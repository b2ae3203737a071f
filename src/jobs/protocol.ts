import type { Placement } from '../device/devices.ts'
import type { Job, JobFailure, NewEvent } from './types.ts'

/** What a child process needs to know of its job. */
export interface WorkerJob extends Pick<Job, 'id' | 'kind' | 'resolved' | 'outputDir'> {
  /** 1 for the first start. */
  attempt: number
  /** Where it computes; on the CPU when left out. */
  placement?: Placement
}

/** From the supervisor to its child. */
export type ToWorker =
  | { type: 'start'; job: WorkerJob }
  /** Write a checkpoint where there is one to write, then end. */
  | { type: 'stop' }

/** From the child to its supervisor. The last message is `succeeded`, `stopped` or `failed`. */
export type FromWorker =
  | { type: 'ready' }
  | { type: 'event'; event: NewEvent }
  | { type: 'succeeded'; result: Record<string, unknown> }
  | { type: 'stopped'; message: string }
  | { type: 'failed'; error: JobFailure }

/** What a task is given, and how it reports. */
export interface TaskContext {
  job: WorkerJob
  /** Aborts when the task is asked to stop. A task that is done anyway may finish. */
  signal: AbortSignal
  report(type: NewEvent['type'], message: string, data?: NewEvent['data']): void
}

/** Does a job's work and returns what its row keeps as its result; throws when it stopped early. */
export type Task = (context: TaskContext) => Promise<Record<string, unknown>>
