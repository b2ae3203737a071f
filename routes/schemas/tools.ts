import { z } from '@hono/zod-openapi'

const functionName = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, 'letters, digits, _ and -, at most 64')

export const tool = z
  .strictObject({
    type: z.literal('function', 'only tools of the type function are supported'),
    function: z.strictObject({
      name: functionName,
      description: z.string().max(100_000).nullish(),
      parameters: z
        .record(z.string(), z.unknown())
        .nullish()
        .openapi({ description: 'JSON Schema of the arguments; none where it is left out.' }),
      strict: z.boolean().nullish().openapi({ description: 'The arguments are made to fit the schema.' }),
    }),
  })
  .openapi('Tool')

export const toolChoice = z.union([
  z.enum(['none', 'auto', 'required']),
  z.strictObject({ type: z.literal('function'), function: z.strictObject({ name: functionName }) }),
])

/** A call in an assistant's message, as clients send it back. */
export const messageToolCall = z.strictObject({
  id: z.string().min(1).max(200),
  type: z.literal('function'),
  function: z.strictObject({
    name: z.string().min(1).max(200),
    arguments: z.string(),
    parsed_arguments: z.unknown().optional().openapi({ description: "Some clients' own reading." }),
  }),
  index: z.int().nullish(),
})

export const responseFormat = z
  .discriminatedUnion('type', [
    z.strictObject({ type: z.literal('text') }),
    z.strictObject({ type: z.literal('json_object') }),
    z.strictObject({
      type: z.literal('json_schema'),
      json_schema: z.strictObject({
        name: functionName,
        description: z.string().nullish(),
        schema: z
          .record(z.string(), z.unknown())
          .nullish()
          .openapi({ description: 'Any object where it is left out.' }),
        strict: z.boolean().nullish(),
      }),
    }),
  ])
  .openapi('ResponseFormat')

/** A call in an answer; in a stream its arguments come piece by piece. */
export const answerToolCall = z
  .object({
    id: z.string(),
    type: z.literal('function'),
    function: z.object({ name: z.string(), arguments: z.string() }),
  })
  .openapi('ToolCall')

export const toolCallDelta = z.object({
  index: z.int(),
  id: z.string().optional(),
  type: z.literal('function').optional(),
  function: z.object({ name: z.string().optional(), arguments: z.string() }),
})
