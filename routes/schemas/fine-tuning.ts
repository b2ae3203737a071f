import { z } from '@hono/zod-openapi'
import { unixTime } from './common.ts'
import { jobError } from './jobs.ts'

const automatic = <T extends z.ZodType>(value: T) => z.union([z.literal('auto'), value])

const hyperparameters = {
  n_epochs: automatic(z.int().min(1).max(50)).optional(),
  batch_size: automatic(z.int().min(1).max(256)).optional(),
  learning_rate_multiplier: automatic(z.number().positive()).optional(),
}
const supervised = z.strictObject(hyperparameters)
const dpo = z.strictObject({ ...hyperparameters, beta: automatic(z.number().positive().max(2)).optional() })

const method = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('supervised'),
    supervised: z.strictObject({ hyperparameters: supervised.optional() }).optional(),
  }),
  z.strictObject({
    type: z.literal('dpo'),
    dpo: z.strictObject({ hyperparameters: dpo.optional() }).optional(),
  }),
])

const lora = z.strictObject({
  r: z.int().min(1).max(1024).optional(),
  alpha: z.number().positive().optional(),
  dropout: z.number().min(0).lt(1).optional(),
  target_modules: z.union([z.string(), z.array(z.string()).min(1)]).optional(),
})

/** OpenAI's request; further fields are LLaMA-Factory's and are checked as a training configuration is. */
export const fineTuningRequest = z
  .looseObject({
    model: z.string().min(1).max(150).openapi({ example: 'anneal-tiny' }),
    training_file: z.string().openapi({ example: 'file-6f0c1b7d2e9a4c35' }),
    validation_file: z.string().nullish(),
    suffix: z
      .string()
      .min(1)
      .max(64)
      .regex(/^[A-Za-z0-9_.-]+$/, 'may hold letters, digits and . _ -')
      .nullish(),
    seed: z.int().min(0).max(2_147_483_647).nullish(),
    metadata: z.record(z.string().max(64), z.string().max(512)).nullish(),
    integrations: z.array(z.unknown()).max(0, 'are not supported').nullish(),
    method: method.optional(),
    hyperparameters: supervised.optional().openapi({ deprecated: true }),
    lora: lora.optional().openapi({ description: 'Knobs of the adapter that OpenAI does not have.' }),
  })
  .openapi('FineTuningRequest')

const fineTuningStatus = z.enum([
  'validating_files',
  'queued',
  'running',
  'paused',
  'succeeded',
  'failed',
  'cancelled',
])

export const fineTuningJob = z
  .object({
    id: z.string().openapi({ example: 'ftjob-3f9a1c07b2de' }),
    object: z.literal('fine_tuning.job'),
    created_at: unixTime,
    finished_at: unixTime.nullable(),
    estimated_finish: unixTime.nullable(),
    error: jobError.nullable(),
    model: z.string(),
    fine_tuned_model: z.string().nullable().openapi({ example: 'ft:anneal-tiny:anneal:faq:3f9a1c07b2de' }),
    organization_id: z.string(),
    status: fineTuningStatus,
    training_file: z.string(),
    validation_file: z.string().nullable(),
    result_files: z.array(z.string()),
    trained_tokens: z.number().int().nullable(),
    seed: z.number().int(),
    hyperparameters: z.object({
      n_epochs: z.number(),
      batch_size: z.number(),
      learning_rate_multiplier: z.number(),
    }),
    method: z.record(z.string(), z.unknown()),
    metadata: z.record(z.string(), z.string()).nullable(),
    integrations: z.array(z.unknown()).nullable(),
  })
  .openapi('FineTuningJob')

export const fineTuningEvent = z
  .object({
    id: z.string(),
    object: z.literal('fine_tuning.job.event'),
    created_at: unixTime,
    level: z.enum(['info', 'warn', 'error']),
    message: z.string(),
    type: z.enum(['message', 'metrics']),
    data: z.record(z.string(), z.unknown()),
  })
  .openapi('FineTuningEvent')

export const fineTuningCheckpoint = z
  .object({
    id: z.string().openapi({ example: 'ftckpt-3f9a1c07b2de-100' }),
    object: z.literal('fine_tuning.job.checkpoint'),
    created_at: unixTime,
    fine_tuning_job_id: z.string(),
    fine_tuned_model_checkpoint: z.string(),
    step_number: z.number().int(),
    metrics: z.object({
      step: z.number(),
      train_loss: z.number().optional(),
      valid_loss: z.number().optional(),
    }),
  })
  .openapi('FineTuningCheckpoint')

const page = (limit: number) =>
  z.object({
    after: z.string().max(150).optional(),
    limit: z.coerce.number().int().min(1).max(100).default(limit).openapi({ type: 'integer' }),
  })

export const fineTuningPage = page(20)
export const checkpointPage = page(10)

export type FineTuningRequest = z.infer<typeof fineTuningRequest>
export type FineTuningJob = z.infer<typeof fineTuningJob>
export type FineTuningEvent = z.infer<typeof fineTuningEvent>
export type FineTuningCheckpoint = z.infer<typeof fineTuningCheckpoint>
