import { z } from '@hono/zod-openapi'

const textPart = z.object({
  type: z.literal('text', 'only text parts are supported'),
  text: z.string(),
})

/** A field that means something this server does not do: only values that ask for nothing pass. */
const unsupported = (isHarmless: (value: unknown) => boolean, message: string) =>
  z
    .unknown()
    .refine((value) => value === undefined || value === null || isHarmless(value), {
      message,
      params: { code: 'unsupported_parameter' },
    })
    .optional()
    .openapi({ description: `Accepted only where it asks for nothing: ${message}.` })

const isEmpty = (value: unknown) =>
  typeof value === 'object' && value !== null && Object.keys(value).length === 0
const isZero = (value: unknown) => value === 0
const isFalse = (value: unknown) => value === false
const never = () => false

/** Clients echo the assistant's messages back whole, with fields that are null or empty. */
export const chatMessage = z
  .strictObject({
    role: z.enum(['developer', 'system', 'user', 'assistant', 'tool']),
    content: z.union([z.string(), z.array(textPart).min(1)]),
    name: z.string().max(64).nullish(),
    tool_call_id: z.string().nullish(),
    refusal: unsupported(never, 'refusals are not supported'),
    annotations: unsupported(isEmpty, 'annotations are not supported'),
    audio: unsupported(never, 'audio is not supported'),
    tool_calls: unsupported(isEmpty, 'tool calls are not supported'),
    function_call: unsupported(never, 'function calls are not supported'),
  })
  .openapi('ChatMessage', { example: { role: 'user', content: 'Who are you?' } })

const stopString = z.string().min(1, 'a stop string must not be empty')

/** Fields that change nothing in what is generated. */
const harmless = {
  user: z.string().nullish(),
  metadata: z.record(z.string(), z.string()).nullish(),
  store: z.boolean().nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  service_tier: z.string().nullish(),
  safety_identifier: z.string().nullish(),
  prompt_cache_key: z.string().nullish(),
  prompt_cache_retention: z.string().nullish(),
}

const notDone = {
  tools: unsupported(isEmpty, 'tools are not supported'),
  tool_choice: unsupported((value) => value === 'none', 'tools are not supported'),
  functions: unsupported(isEmpty, 'functions are not supported'),
  function_call: unsupported((value) => value === 'none', 'functions are not supported'),
  logprobs: unsupported(isFalse, 'log probabilities are not supported'),
  top_logprobs: unsupported(isZero, 'log probabilities are not supported'),
  logit_bias: unsupported(isEmpty, 'logit_bias is not supported'),
  presence_penalty: unsupported(isZero, 'penalties are not supported'),
  frequency_penalty: unsupported(isZero, 'penalties are not supported'),
  response_format: unsupported(
    (value) => (value as { type?: unknown }).type === 'text',
    'only the response format {"type": "text"} is supported',
  ),
  modalities: unsupported(
    (value) => Array.isArray(value) && value.every((item) => item === 'text'),
    'only the modality "text" is supported',
  ),
  audio: unsupported(never, 'audio is not supported'),
  prediction: unsupported(never, 'predicted output is not supported'),
  reasoning_effort: unsupported((value) => value === 'none', 'reasoning_effort is not supported'),
  verbosity: unsupported(never, 'verbosity is not supported'),
  web_search_options: unsupported(never, 'web search is not supported'),
  moderation: unsupported(never, 'moderation is not supported'),
}

export const chatRequest = z
  .strictObject({
    model: z.string().min(1).max(200).openapi({ example: 'anneal-tiny' }),
    messages: z.array(chatMessage).min(1, 'at least one message is needed'),
    stream: z.boolean().nullish(),
    stream_options: z
      .strictObject({ include_usage: z.boolean().nullish(), include_obfuscation: z.boolean().nullish() })
      .nullish(),
    max_tokens: z.int().min(1).nullish().openapi({ description: 'Older name of max_completion_tokens.' }),
    max_completion_tokens: z.int().min(1).nullish(),
    temperature: z.number().min(0).max(2).nullish(),
    top_p: z.number().gt(0).max(1).nullish(),
    top_k: z.int().min(0).nullish().openapi({ description: 'An extension; 0 switches it off.' }),
    seed: z.int().nullish(),
    stop: z.union([stopString, z.array(stopString).max(4, 'at most four stop strings')]).nullish(),
    n: z.literal(1, 'only one choice per request is supported: leave n out or set it to 1').nullish(),
    ...harmless,
    ...notDone,
  })
  .superRefine((value, context) => {
    const { max_tokens, max_completion_tokens, stream, stream_options } = value
    if (max_tokens != null && max_completion_tokens != null && max_tokens !== max_completion_tokens) {
      const message = 'differs from max_completion_tokens, of which it is the older name'
      context.addIssue({ code: 'custom', path: ['max_tokens'], message })
    }
    if (stream_options != null && stream !== true) {
      context.addIssue({
        code: 'custom',
        path: ['stream_options'],
        message: 'only allowed when stream is true',
      })
    }
  })
  .openapi('ChatCompletionRequest')

const finishReason = z.enum(['stop', 'length'])

export const usage = z
  .object({ prompt_tokens: z.int(), completion_tokens: z.int(), total_tokens: z.int() })
  .openapi('Usage')

export const chatCompletion = z
  .object({
    id: z.string().openapi({ example: 'chatcmpl-5f1c…' }),
    object: z.literal('chat.completion'),
    created: z.int(),
    model: z.string(),
    system_fingerprint: z.string(),
    choices: z.array(
      z.object({
        index: z.int(),
        message: z.object({ role: z.literal('assistant'), content: z.string(), refusal: z.null() }),
        logprobs: z.null(),
        finish_reason: finishReason,
      }),
    ),
    usage,
  })
  .openapi('ChatCompletion')

export const chatCompletionChunk = z
  .object({
    id: z.string(),
    object: z.literal('chat.completion.chunk'),
    created: z.int(),
    model: z.string(),
    system_fingerprint: z.string(),
    choices: z.array(
      z.object({
        index: z.int(),
        delta: z.object({ role: z.literal('assistant').optional(), content: z.string().optional() }),
        logprobs: z.null(),
        finish_reason: finishReason.nullable(),
      }),
    ),
    usage: z.union([usage, z.null()]).optional(),
  })
  .openapi('ChatCompletionChunk')

export type ChatBody = z.infer<typeof chatRequest>
export type ChatMessageBody = z.infer<typeof chatMessage>
export type ChatCompletion = z.infer<typeof chatCompletion>
export type ChatCompletionChunk = z.infer<typeof chatCompletionChunk>
