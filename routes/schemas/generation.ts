import { z } from '@hono/zod-openapi'

/** A field that means something this server does not do: only values that ask for nothing pass. */
export const unsupported = (isHarmless: (value: unknown) => boolean, message: string) =>
  z
    .unknown()
    .refine((value) => value === undefined || value === null || isHarmless(value), {
      message,
      params: { code: 'unsupported_parameter' },
    })
    .optional()
    .openapi({ description: `Accepted only where it asks for nothing: ${message}.` })

export const isEmpty = (value: unknown) =>
  typeof value === 'object' && value !== null && Object.keys(value).length === 0
export const never = () => false

export const modelId = z.string().min(1).max(200).openapi({ example: 'anneal-tiny' })

/** Larger than any context, small enough to multiply. */
export const tokenCount = z.int().min(1).max(1_000_000)
export const tokenId = z.int().min(0).max(10_000_000)

const stopString = z.string().min(1, 'a stop string must not be empty').max(1000)
const extension = (description: string) => ({ description: `An extension. ${description}` })

/** What chat and completions have in common: how to draw and when to end. */
export const samplingFields = {
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  top_k: z.int().min(0).max(10_000_000).nullish().openapi(extension('0 switches it off.')),
  min_p: z
    .number()
    .min(0)
    .max(1)
    .nullish()
    .openapi(extension('Drops tokens less likely than this part of the likeliest.')),
  repetition_penalty: z
    .number()
    .gt(0)
    .max(100)
    .nullish()
    .openapi(extension('Above 1 makes tokens of the prompt and the answer less likely.')),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  logit_bias: z
    .record(z.string().regex(/^\d{1,8}$/, 'keys are token ids'), z.number().min(-100).max(100))
    .refine((value) => Object.keys(value).length <= 1024, 'at most 1024 tokens')
    .nullish()
    .openapi({ description: 'Added to the logits of single tokens, by id.' }),
  seed: z.int().nullish().openapi({ description: 'The same seed draws the same text.' }),
  stop: z.union([stopString, z.array(stopString).max(4, 'at most four stop strings')]).nullish(),
  n: z.int().min(1).max(128).nullish().openapi({ description: 'Answers to each prompt.' }),
  min_tokens: z
    .int()
    .min(0)
    .max(1_000_000)
    .nullish()
    .openapi(extension('The answer does not end before so many tokens.')),
  ignore_eos: z
    .boolean()
    .nullish()
    .openapi(extension('Goes on behind the end of the answer, for measurements.')),
  stream: z.boolean().nullish(),
  stream_options: z
    .strictObject({ include_usage: z.boolean().nullish(), include_obfuscation: z.boolean().nullish() })
    .nullish(),
}

interface Streamed {
  stream?: boolean | null | undefined
  stream_options?: unknown
}

/** `stream_options` needs a stream. */
export function checkStream({ stream, stream_options }: Streamed, context: z.RefinementCtx): void {
  if (stream_options == null || stream === true) return
  context.addIssue({
    code: 'custom',
    path: ['stream_options'],
    message: 'only allowed when stream is true',
  })
}

export const usage = z
  .object({
    prompt_tokens: z.int(),
    completion_tokens: z.int(),
    total_tokens: z.int(),
    prompt_tokens_details: z.object({ cached_tokens: z.int() }),
    completion_tokens_details: z.object({
      reasoning_tokens: z.int(),
      accepted_prediction_tokens: z.int(),
      rejected_prediction_tokens: z.int(),
    }),
  })
  .openapi('Usage')

/** Fields that change nothing in what is generated. */
export const harmless = {
  user: z.string().nullish(),
  metadata: z.record(z.string(), z.string()).nullish(),
  store: z.boolean().nullish(),
  service_tier: z.string().nullish(),
  safety_identifier: z.string().nullish(),
  prompt_cache_key: z.string().nullish(),
  prompt_cache_retention: z.string().nullish(),
}
