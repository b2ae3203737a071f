import { z } from '@hono/zod-openapi'

/** A dataset's name is its key in dataset_info.json and never a path. */
export const datasetName = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/,
    'letters, digits, _ . and -, at most 64, starting with a letter or digit',
  )
  .openapi({ example: 'identity' })

const datasetFormatting = z.enum(['alpaca', 'sharegpt', 'openai'])

/** `columns` and `tags` as in dataset_info.json: the role on the left, the key in the rows on the right. */
const datasetColumns = z.record(z.string(), z.string())

export const dataset = z
  .object({
    name: datasetName,
    object: z.literal('dataset'),
    formatting: datasetFormatting,
    file_name: z.string(),
    columns: datasetColumns.nullable(),
    tags: datasetColumns.nullable(),
    rows: z.number().int().nullable().openapi({ description: 'Null where it was not counted yet.' }),
    bytes: z.number().int().nullable().openapi({ description: 'Null where the file is missing.' }),
    error: z.string().nullable().openapi({ description: 'Why this entry cannot be used, if so.' }),
  })
  .openapi('Dataset')

const flag = z.enum(['true', 'false']).transform((value) => value === 'true')

/** The fields of an upload beside its file; the objects come as JSON text in their form field. */
export const datasetFields = z.strictObject({
  name: datasetName,
  formatting: datasetFormatting.default('alpaca'),
  ranking: flag.optional(),
  columns: datasetColumns.optional(),
  tags: datasetColumns.optional(),
})

export const datasetConversion = z
  .strictObject({
    name: datasetName.openapi({ description: 'Name of the new dataset.', example: 'faq_alpaca' }),
    rename: z
      .record(z.string().min(1), z.string().min(1))
      .refine((value) => Object.keys(value).length > 0, 'name at least one key')
      .openapi({
        description: 'Old key to new key.',
        example: { query: 'instruction', response: 'output' },
      }),
    formatting: datasetFormatting.default('alpaca'),
  })
  .openapi('DatasetConversion')

export const datasetPreviewQuery = z.object({
  offset: z.coerce.number().int().min(0).default(0).openapi({ type: 'integer' }),
  limit: z.coerce.number().int().min(1).max(100).default(5),
  model: z.string().min(1).optional().openapi({
    description: 'Render and tokenize with this model; without it only the rows come.',
  }),
  cutoff_len: z.coerce.number().int().min(1).max(1_048_576).default(2048),
  train_on_prompt: flag.optional(),
  mask_history: flag.optional(),
  stage: z.enum(['sft', 'pt', 'rm', 'dpo', 'kto']).default('sft'),
})

const tokens = z.array(z.object({ id: z.number().int(), text: z.string(), trained: z.boolean() })).nullable()

export const datasetPreview = z
  .object({
    object: z.literal('dataset.preview'),
    dataset: z.string(),
    model: z.string().nullable(),
    offset: z.number().int(),
    total_rows: z.number().int().nullable(),
    data: z.array(
      z.object({
        index: z.number().int(),
        raw: z.unknown().openapi({ description: 'The row as it stands in the file.' }),
        text: z.string().nullable().openapi({ description: 'The row after the chat template.' }),
        tokens: tokens.openapi({ description: 'Each token, and whether the loss counts it.' }),
        rejected_tokens: tokens.openapi({
          description: 'Of a pair (stages rm and dpo), whose chosen answer `tokens` shows, the rejected one.',
        }),
        truncated: z.boolean(),
        error: z.string().nullable().openapi({ description: 'Why this row cannot be used, if so.' }),
      }),
    ),
  })
  .openapi('DatasetPreview')

export type Dataset = z.infer<typeof dataset>
export type DatasetFields = z.infer<typeof datasetFields>
export type DatasetConversion = z.infer<typeof datasetConversion>
export type DatasetPreviewQuery = z.infer<typeof datasetPreviewQuery>
export type DatasetPreview = z.infer<typeof datasetPreview>
