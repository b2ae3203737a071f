import { z } from '@hono/zod-openapi'
import {
  checkStream,
  harmless,
  isEmpty,
  modelId,
  never,
  samplingFields,
  tokenCount,
  unsupported,
  usage,
} from './generation.ts'
import { answerToolCall, messageToolCall, responseFormat, tool, toolCallDelta, toolChoice } from './tools.ts'

const textPart = z.object({
  type: z.literal('text', 'only text parts are supported'),
  text: z.string(),
})

/** Clients echo the assistant's messages back whole, with fields that are null or empty. */
const chatMessage = z
  .strictObject({
    role: z.enum(['developer', 'system', 'user', 'assistant', 'tool']),
    content: z.union([z.string(), z.array(textPart).min(1)]).nullish(),
    name: z.string().max(64).nullish(),
    tool_call_id: z.string().max(200).nullish(),
    tool_calls: z.array(messageToolCall).max(128).nullish(),
    reasoning_content: z.string().nullish().openapi({ description: "An earlier answer's reasoning." }),
    refusal: unsupported(never, 'refusals are not supported'),
    annotations: unsupported(isEmpty, 'annotations are not supported'),
    audio: unsupported(never, 'audio is not supported'),
    function_call: unsupported(never, 'function calls are not supported'),
    parsed: z.unknown().optional().openapi({ description: "Some clients' own reading of the content." }),
  })
  .superRefine(({ role, content, tool_calls, tool_call_id }, context) => {
    const problem = (field: string, message: string) =>
      context.addIssue({ code: 'custom', path: [field], message })
    const calls = tool_calls?.length ?? 0
    if (content == null && calls === 0) problem('content', 'needed, but for an assistant that calls tools')
    if (calls > 0 && role !== 'assistant') problem('tool_calls', 'only an assistant calls tools')
    if (role === 'tool' && !tool_call_id) problem('tool_call_id', 'a tool names the call that it answers')
  })
  .openapi('ChatMessage', { example: { role: 'user', content: 'Who are you?' } })

const notDone = {
  functions: unsupported(isEmpty, 'functions are the older name of tools; use tools'),
  function_call: unsupported((value) => value === 'none', 'use tool_choice'),
  modalities: unsupported(
    (value) => Array.isArray(value) && value.every((item) => item === 'text'),
    'only the modality "text" is supported',
  ),
  audio: unsupported(never, 'audio is not supported'),
  verbosity: unsupported(never, 'verbosity is not supported'),
  web_search_options: unsupported(never, 'web search is not supported'),
  moderation: unsupported(never, 'moderation is not supported'),
}

/** What a template may show. */
const conversationFields = {
  model: modelId,
  messages: z.array(chatMessage).min(1, 'at least one message is needed').max(10_000),
  tools: z.array(tool).max(128).nullish(),
  tool_choice: toolChoice.nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  reasoning_effort: z.enum(['none', 'minimal', 'low', 'medium', 'high', 'xhigh']).nullish(),
  chat_template_kwargs: z.record(z.string().max(64), z.unknown()).nullish().openapi({
    description: 'An extension. Variables of the chat template, such as enable_thinking.',
  }),
}

const prediction = z
  .strictObject({ type: z.literal('content'), content: z.union([z.string(), z.array(textPart)]) })
  .openapi({
    description:
      'What the answer is expected to be, such as a text that is to be edited: where it comes true, tokens are computed ' +
      'several at a time while the request is alone. It is for speed; over weights at 8 and 4 bits it may turn near ties.',
  })

export const chatRequest = z
  .strictObject({
    ...conversationFields,
    ...samplingFields,
    max_tokens: tokenCount.nullish().openapi({ description: 'Older name of max_completion_tokens.' }),
    max_completion_tokens: tokenCount.nullish(),
    logprobs: z.boolean().nullish(),
    top_logprobs: z.int().min(0).max(20).nullish().openapi({ description: 'Needs logprobs.' }),
    response_format: responseFormat.nullish(),
    prediction: prediction.nullish(),
    ...harmless,
    ...notDone,
  })
  .superRefine((value, context) => {
    const problem = (field: string, message: string) =>
      context.addIssue({ code: 'custom', path: [field], message })
    const { max_tokens, max_completion_tokens, top_logprobs, logprobs, tools, tool_choice } = value
    if (max_tokens != null && max_completion_tokens != null && max_tokens !== max_completion_tokens) {
      problem('max_tokens', 'differs from max_completion_tokens, of which it is the older name')
    }
    if (top_logprobs && !logprobs) problem('top_logprobs', 'only allowed when logprobs is true')
    const chosen = typeof tool_choice === 'object' ? tool_choice?.function.name : undefined
    if (chosen !== undefined && !tools?.some((entry) => entry.function.name === chosen)) {
      problem('tool_choice', `names ${chosen}, which is not among the tools`)
    }
    if (tool_choice === 'required' && !tools?.length)
      problem('tool_choice', 'requires a tool; there are none')
    const names = tools?.map((entry) => entry.function.name) ?? []
    if (new Set(names).size < names.length) problem('tools', 'two tools have the same name')
    checkStream(value, context)
  })
  .openapi('ChatCompletionRequest')

export const renderRequest = z
  .strictObject({ ...conversationFields, add_generation_prompt: z.boolean().default(true) })
  .openapi('RenderRequest')

export const rendered = z
  .object({ object: z.literal('chat.render'), model: z.string(), text: z.string(), tokens: z.array(z.int()) })
  .openapi('RenderedChat')

const finishReason = z.enum(['stop', 'length', 'tool_calls'])

const shownToken = z.object({ token: z.string(), logprob: z.number(), bytes: z.array(z.int()).nullable() })

const logprobs = z.object({
  content: z.array(shownToken.extend({ top_logprobs: z.array(shownToken) })).nullable(),
  refusal: z.null(),
})

const identity = {
  id: z.string().openapi({ example: 'chatcmpl-5f1c…' }),
  created: z.int(),
  model: z.string(),
  system_fingerprint: z.string(),
}

export const chatCompletion = z
  .object({
    ...identity,
    object: z.literal('chat.completion'),
    choices: z.array(
      z.object({
        index: z.int(),
        message: z.object({
          role: z.literal('assistant'),
          content: z.string().nullable(),
          refusal: z.null(),
          reasoning_content: z.string().optional(),
          tool_calls: z.array(answerToolCall).optional(),
        }),
        logprobs: logprobs.nullable(),
        finish_reason: finishReason,
      }),
    ),
    usage,
  })
  .openapi('ChatCompletion')

export const chatCompletionChunk = z
  .object({
    ...identity,
    object: z.literal('chat.completion.chunk'),
    choices: z.array(
      z.object({
        index: z.int(),
        delta: z.object({
          role: z.literal('assistant').optional(),
          content: z.string().optional(),
          reasoning_content: z.string().optional(),
          tool_calls: z.array(toolCallDelta).optional(),
        }),
        logprobs: logprobs.nullable(),
        finish_reason: finishReason.nullable(),
      }),
    ),
    usage: z.union([usage, z.null()]).optional(),
  })
  .openapi('ChatCompletionChunk')

export type ChatBody = z.infer<typeof chatRequest>
export type RenderBody = z.infer<typeof renderRequest>
export type ChatMessageBody = z.infer<typeof chatMessage>
export type ChatCompletion = z.infer<typeof chatCompletion>
export type ChatCompletionChunk = z.infer<typeof chatCompletionChunk>
