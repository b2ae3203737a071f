import { z } from '@hono/zod-openapi'
import { unixTime } from './common.ts'

/** OpenAI's model object; `root` and `parent` carry the lineage of adapters as vLLM does. */
export const model = z
  .object({
    id: z.string().openapi({ example: 'run-3f9a1c07b2de:ckpt-step-100' }),
    object: z.literal('model'),
    created: unixTime,
    owned_by: z.string(),
    root: z.string().openapi({ description: 'Id of the base model below it.' }),
    parent: z.string().nullable().openapi({ description: 'Id of the model it was made from.' }),
    kind: z.enum(['base', 'run', 'checkpoint', 'merge', 'export']),
    state: z
      .enum(['unloaded', 'loading', 'ready', 'closing'])
      .openapi({ description: 'Of its base model, which is loaded by the first request.' }),
    device: z.string().nullable().openapi({
      description: 'What the loaded base computes on: cpu, webgpu or cuda:N.',
      example: 'cpu',
    }),
    memory_bytes: z
      .number()
      .int()
      .nullable()
      .openapi({ description: "Resident memory of the loaded base's process." }),
    max_model_len: z.number().int().nullable().openapi({ description: 'Context length in tokens.' }),
  })
  .openapi('Model')

export type Model = z.infer<typeof model>
