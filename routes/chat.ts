import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { chunksOf, collect } from './chat-answers.ts'
import { defaultHook } from './errors.ts'
import { accept, sendChunks, toSettings } from './generation.ts'
import type { ChatMessage, ChatRequest, ChatService, Conversation } from './generation-services.ts'
import { errors, json, jsonBody, missing } from './responses.ts'
import {
  type ChatBody,
  type ChatMessageBody,
  chatCompletion,
  chatCompletionChunk,
  chatRequest,
  type RenderBody,
  rendered,
  renderRequest,
} from './schemas/chat.ts'
import { followRequest, type StreamSettings } from './sse.ts'

const tags = ['Chat']

const complete = createRoute({
  method: 'post',
  path: '/v1/chat/completions',
  tags,
  summary: 'Answer a conversation',
  description: 'Works with any model id: a base, a run, a checkpoint, a merge or an export.',
  request: { body: jsonBody(chatRequest) },
  responses: {
    200: {
      description: 'The answer; with `stream`, server-sent chunks that end with `data: [DONE]`.',
      content: {
        'application/json': { schema: chatCompletion },
        'text/event-stream': { schema: chatCompletionChunk },
      },
    },
    ...errors,
    ...missing,
  },
})

const render = createRoute({
  method: 'post',
  path: '/v1/chat/completions/render',
  tags,
  summary: 'See what the chat template makes of a conversation',
  description: 'The prompt as text and as token ids. Nothing is generated.',
  request: { body: jsonBody(renderRequest) },
  responses: { 200: json(rendered, 'The prompt.'), ...errors, ...missing },
})

function toMessage(body: ChatMessageBody): ChatMessage {
  const { role, content, name, tool_call_id, tool_calls, reasoning_content } = body
  const calls = (tool_calls ?? []).map((call) => {
    return { id: call.id, name: call.function.name, arguments: call.function.arguments }
  })
  return {
    role: role === 'developer' ? 'system' : role,
    content: textOf(content),
    ...(name != null ? { name } : {}),
    ...(tool_call_id != null ? { toolCallId: tool_call_id } : {}),
    ...(calls.length > 0 ? { toolCalls: calls } : {}),
    ...(reasoning_content != null ? { reasoning: reasoning_content } : {}),
  }
}

function textOf(content: ChatMessageBody['content']): string {
  return typeof content === 'string' ? content : (content?.map((part) => part.text).join('') ?? '')
}

/** The conversation in the application's terms. */
function toConversation(body: ChatBody | RenderBody): Conversation {
  const { tool_choice: choice } = body
  return {
    model: body.model,
    messages: body.messages.map(toMessage),
    tools: body.tools?.map(({ function: { name, description, parameters, strict } }) => ({
      name,
      description: description ?? undefined,
      parameters: parameters ?? undefined,
      strict: strict ?? undefined,
    })),
    toolChoice: typeof choice === 'object' && choice !== null ? choice.function : (choice ?? undefined),
    parallelToolCalls: body.parallel_tool_calls ?? undefined,
    templateVariables: body.chat_template_kwargs ?? undefined,
    reasoningEffort: body.reasoning_effort ?? undefined,
  }
}

/** The request in the application's terms: null and absent are the same, and each setting has one name. */
function toChatRequest(body: ChatBody): ChatRequest {
  return {
    ...toConversation(body),
    ...toSettings(body),
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? undefined,
    logprobs: body.logprobs ? (body.top_logprobs ?? 0) : undefined,
    responseFormat: toResponseFormat(body.response_format),
    prediction: body.prediction ? textOf(body.prediction.content) : undefined,
  }
}

function toResponseFormat(format: ChatBody['response_format']): ChatRequest['responseFormat'] {
  if (format == null || format.type === 'text') return undefined
  if (format.type === 'json_object') return format
  const { schema, strict } = format.json_schema
  return schema ? { type: 'json_schema', schema, strict: strict ?? false } : { type: 'json_object' }
}

/**
 * /v1/chat/completions, as OpenAI's clients know it. The generation is aborted as soon as the client has gone, streamed or
 * not.
 */
export function chatRoutes(service: ChatService, streams: StreamSettings): OpenAPIHono {
  const app = new OpenAPIHono({ defaultHook })
  app.openapi(complete, async (c) => {
    const body = c.req.valid('json')
    const abort = followRequest(c)
    const request = toChatRequest(body)
    const events = service.complete(request, abort.signal)[Symbol.asyncIterator]()
    const identity = await accept(events, 'chatcmpl', body.model)
    const choices = request.n ?? 1
    if (!body.stream) return c.json(await collect(events, identity, choices), 200)
    const includeUsage = body.stream_options?.include_usage ?? false
    return sendChunks(c, chunksOf(events, identity, choices, includeUsage), abort, streams)
  })
  app.openapi(render, async (c) => {
    const body = c.req.valid('json')
    const conversation = { ...toConversation(body), addGenerationPrompt: body.add_generation_prompt }
    const prompt = await service.render(conversation, followRequest(c).signal)
    return c.json({ object: 'chat.render' as const, model: body.model, ...prompt }, 200)
  })
  return app
}
