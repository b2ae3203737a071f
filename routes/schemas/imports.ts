import { z } from '@hono/zod-openapi'
import { jobFields, taskProgress } from './jobs.ts'

/** A file name and nothing else: no separator of any system, no leading dot, no NUL. */
const ggufName = z
  .string()
  .max(200)
  .regex(/^[A-Za-z0-9][A-Za-z0-9._ -]*\.gguf$/, 'must be the plain name of a .gguf file in a models folder')

export const importRequest = z
  .strictObject({
    file: ggufName.openapi({ example: 'SmolLM2-135M-Instruct-Q4_1.gguf' }),
    name: z.string().min(1).max(100).optional().openapi({
      description: "Id of the new base model; the file's name without .gguf by default.",
    }),
    dtype: z.enum(['bfloat16', 'float16', 'float32']).optional().openapi({
      description: "Of the weights; the file's own by default, and bfloat16 where it is quantized.",
    }),
  })
  .openapi('ImportRequest')

export const importJob = z
  .object({
    id: z.string().openapi({ example: 'import-7c1f20d9be35' }),
    object: z.literal('import'),
    file: z.string(),
    model: z.string().openapi({ description: 'Id of the base model that it becomes.' }),
    dtype: z.string().nullable(),
    progress: taskProgress.nullable(),
    bytes: z.number().int().nullable(),
    ...jobFields,
  })
  .openapi('Import')

export type ImportRequest = z.infer<typeof importRequest>
export type ImportJob = z.infer<typeof importJob>
