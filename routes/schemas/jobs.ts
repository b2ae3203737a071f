import { z } from '@hono/zod-openapi'
import { unixTime } from './common.ts'

/** Where a job stands. `cancelling` is a running job that was asked to stop and is writing its last checkpoint. */
const jobStatus = z.enum(['queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled'])

/** Why a job failed, in the terms of the error envelope. */
export const jobError = z.object({
  code: z.string(),
  message: z.string(),
  param: z.string().nullable(),
})

/** The fields that training runs, merges and exports share. */
export const jobFields = {
  status: jobStatus,
  created_at: unixTime,
  started_at: unixTime.nullable(),
  finished_at: unixTime.nullable(),
  error: jobError.nullable(),
}

/** Progress of a merge or an export. */
export const taskProgress = z.object({
  fraction: z.number().min(0).max(1).openapi({ example: 0.4 }),
  message: z.string().openapi({ example: 'writing model-00002-of-00003.safetensors' }),
  remaining_seconds: z.number().nullable(),
})

const jobEventType = z.enum([
  'queued',
  'started',
  'progress',
  'evaluation',
  'checkpoint',
  'log',
  'warning',
  'succeeded',
  'failed',
  'cancelled',
])

/**
 * One event of a job. Ids increase by position in the job's history, so a client that reconnects with the last id it saw
 * misses nothing and sees nothing twice.
 */
export const jobEvent = z
  .object({
    id: z.number().int().positive(),
    object: z.literal('job.event'),
    type: jobEventType,
    created_at: unixTime,
    message: z.string(),
    data: z
      .record(z.string(), z.unknown())
      .openapi({ description: 'Fields by type: step, loss, learning_rate, epoch, remaining_seconds, …' }),
  })
  .openapi('JobEvent')

export type JobStatus = z.infer<typeof jobStatus>
export type JobError = z.infer<typeof jobError>
export type TaskProgress = z.infer<typeof taskProgress>
export type JobEventType = z.infer<typeof jobEventType>
export type JobEvent = z.infer<typeof jobEvent>
