import { z } from '@hono/zod-openapi'
import { checkStream, harmless, modelId, samplingFields, tokenId, unsupported, usage } from './generation.ts'

const tokens = z.array(tokenId).min(1).max(1_000_000)

/** Text, several texts, token ids, or several lists of token ids. */
const prompt = z.union([
  z.string(),
  z.array(z.string()).min(1).max(128),
  tokens,
  z.array(tokens).min(1).max(128),
])

export const completionRequest = z
  .strictObject({
    model: modelId,
    prompt,
    ...samplingFields,
    max_tokens: z
      .int()
      .min(0)
      .max(1_000_000)
      .nullish()
      .openapi({ description: '16 when left out; 0 only with echo.' }),
    logprobs: z.int().min(0).max(5).nullish(),
    echo: z.boolean().nullish(),
    best_of: z.int().min(1).max(20).nullish().openapi({ description: 'Only the value of n.' }),
    suffix: unsupported((value) => value === '', 'insertion before a suffix is not supported'),
    ...harmless,
  })
  .superRefine((value, context) => {
    const problem = (field: string, message: string, code?: string) =>
      context.addIssue({ code: 'custom', path: [field], message, params: code ? { code } : {} })
    if (value.max_tokens === 0 && !value.echo) problem('max_tokens', 'must be at least 1 without echo')
    if (value.best_of != null && value.best_of !== (value.n ?? 1)) {
      problem('best_of', 'choosing the best of several answers is not supported', 'unsupported_parameter')
    }
    checkStream(value, context)
  })
  .openapi('CompletionRequest')

const logprobs = z.object({
  tokens: z.array(z.string()),
  token_logprobs: z.array(z.number().nullable()),
  top_logprobs: z.array(z.record(z.string(), z.number()).nullable()).nullable(),
  text_offset: z.array(z.int()),
})

const completionShape = {
  id: z.string().openapi({ example: 'cmpl-5f1c…' }),
  object: z.literal('text_completion'),
  created: z.int(),
  model: z.string(),
  system_fingerprint: z.string(),
}

const choice = z.object({
  index: z.int(),
  text: z.string(),
  logprobs: logprobs.nullable(),
  finish_reason: z.enum(['stop', 'length']),
})

export const completion = z
  .object({ ...completionShape, choices: z.array(choice), usage })
  .openapi('Completion')

export const completionChunk = z
  .object({
    ...completionShape,
    choices: z.array(choice.extend({ finish_reason: choice.shape.finish_reason.nullable() })),
    usage: z.union([usage, z.null()]).optional(),
  })
  .openapi('CompletionChunk')

export type CompletionBody = z.infer<typeof completionRequest>
export type Completion = z.infer<typeof completion>
export type CompletionChunk = z.infer<typeof completionChunk>
