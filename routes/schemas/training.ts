import { z } from '@hono/zod-openapi'
import { unixTime } from './common.ts'
import { jobFields } from './jobs.ts'

const trainingProgress = z.object({
  step: z.number().int(),
  total_steps: z.number().int(),
  epoch: z.number(),
  loss: z.number().nullable(),
  learning_rate: z.number().nullable(),
  tokens_per_second: z.number().nullable(),
  elapsed_seconds: z.number(),
  remaining_seconds: z.number().nullable(),
})

export const trainingRun = z
  .object({
    id: z.string().openapi({ example: 'run-3f9a1c07b2de' }),
    object: z.literal('training.run'),
    model: z.string().openapi({ description: 'Id of the base model.', example: 'anneal-tiny' }),
    stage: z.string().openapi({ example: 'sft' }),
    finetuning_type: z.string().openapi({ example: 'lora' }),
    datasets: z.array(z.string()).openapi({ example: ['identity'] }),
    output_dir: z.string().openapi({ description: 'The folder under saves/.' }),
    config: z.record(z.string(), z.unknown()).openapi({ description: 'The resolved configuration.' }),
    progress: trainingProgress.nullable(),
    metrics: z
      .record(z.string(), z.number())
      .nullable()
      .openapi({ description: 'all_results.json of a finished run.' }),
    ...jobFields,
  })
  .openapi('TrainingRun')

export const checkpoint = z
  .object({
    id: z
      .string()
      .openapi({ description: 'A model id for chat.', example: 'run-3f9a1c07b2de:ckpt-step-100' }),
    object: z.literal('training.checkpoint'),
    run_id: z.string(),
    step: z.number().int(),
    epoch: z.number().nullable(),
    loss: z.number().nullable(),
    eval_loss: z.number().nullable(),
    bytes: z.number().int(),
    created_at: unixTime,
  })
  .openapi('Checkpoint')

/** What a run would do, found without doing it. */
export const trainingPreview = z
  .object({
    object: z.literal('training.preview'),
    model: z.string(),
    config: z.record(z.string(), z.unknown()).openapi({ description: 'The resolved configuration.' }),
    command: z.string().openapi({ description: 'The same run on the command line.' }),
    yaml: z.string().openapi({ description: 'The same run as a LLaMA-Factory YAML file.' }),
    train_examples: z.number().int(),
    eval_examples: z.number().int(),
    truncated_examples: z.number().int(),
    tokens_per_epoch: z.number().int(),
    trained_tokens_per_epoch: z.number().int(),
    steps_per_epoch: z.number().int(),
    total_steps: z.number().int(),
    total_parameters: z.number().int(),
    trainable_parameters: z.number().int(),
    memory: z.object({
      required_bytes: z.number().int(),
      available_bytes: z.number().int(),
      fits: z.boolean(),
    }),
    warnings: z.array(z.object({ code: z.string(), message: z.string() })),
  })
  .openapi('TrainingPreview')

export type TrainingProgress = z.infer<typeof trainingProgress>
export type TrainingRun = z.infer<typeof trainingRun>
export type Checkpoint = z.infer<typeof checkpoint>
export type TrainingPreview = z.infer<typeof trainingPreview>
