import { z } from '@hono/zod-openapi'

/** OpenAI's error envelope, the only error body that this service sends. */
export const errorEnvelope = z
  .object({
    error: z.object({
      message: z.string().openapi({ description: 'What was wrong, which value, and what would be right.' }),
      type: z.string().openapi({ example: 'invalid_request_error' }),
      param: z
        .string()
        .nullable()
        .openapi({ description: 'Dotted path of the field at fault.', example: 'lora_rank' }),
      code: z
        .string()
        .nullable()
        .openapi({ description: 'Stable identifier of the error.', example: 'unknown_field' }),
    }),
  })
  .openapi('Error')

/** Cursor pagination as OpenAI's clients send it: `after` is the last id of the page before. */
export const pageQuery = z.object({
  after: z.string().min(1).optional().openapi({ description: 'Id of the last item of the page before.' }),
  limit: z.coerce.number().int().min(1).max(100).default(20).openapi({ description: 'Items in a page.' }),
})

/** A list with a cursor: `has_more` says whether another page follows `last_id`. */
export const pageOf = <T extends z.ZodType>(item: T) =>
  z.object({
    object: z.literal('list'),
    data: z.array(item),
    first_id: z.string().nullable(),
    last_id: z.string().nullable(),
    has_more: z.boolean(),
  })

/** A list that always comes whole. */
export const listOf = <T extends z.ZodType>(item: T) =>
  z.object({ object: z.literal('list'), data: z.array(item) })

/** Unix time in whole seconds, as OpenAI's objects carry it. */
export const unixTime = z.number().int().openapi({ example: 1767225600 })

/** What a resource that was deleted answers. */
export const deleted = z
  .object({ id: z.string(), object: z.string(), deleted: z.literal(true) })
  .openapi('Deleted')

export type PageQuery = z.infer<typeof pageQuery>
export type ErrorEnvelope = z.infer<typeof errorEnvelope>
