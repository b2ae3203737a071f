import { randomUUID } from 'node:crypto'
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { defaultHook } from './errors.ts'
import { errors, jsonBody, missing } from './responses.ts'
import {
  type ChatBody,
  type ChatCompletion,
  type ChatCompletionChunk,
  type ChatMessageBody,
  chatCompletion,
  chatCompletionChunk,
  chatRequest,
} from './schemas/chat.ts'
import type { ChatEvent, ChatMessage, ChatRequest, ChatService } from './services.ts'
import { dataFrame, errorFrame, followRequest, type StreamSettings, sendEvents } from './sse.ts'

const complete = createRoute({
  method: 'post',
  path: '/v1/chat/completions',
  tags: ['Chat'],
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

type Finish = Extract<ChatEvent, { type: 'finish' }>
type Events = AsyncIterator<ChatEvent>

/** What every object of one answer repeats. */
interface Identity {
  id: string
  created: number
  model: string
  system_fingerprint: string
}

function toMessage({ role, content, name, tool_call_id }: ChatMessageBody): ChatMessage {
  return {
    role: role === 'developer' ? 'system' : role,
    content: typeof content === 'string' ? content : content.map((part) => part.text).join(''),
    ...(name != null ? { name } : {}),
    ...(tool_call_id != null ? { toolCallId: tool_call_id } : {}),
  }
}

/** The request in the application's terms: null and absent are the same, and each setting has one name. */
export function toChatRequest(body: ChatBody): ChatRequest {
  return {
    model: body.model,
    messages: body.messages.map(toMessage),
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? undefined,
    temperature: body.temperature ?? undefined,
    topP: body.top_p ?? undefined,
    topK: body.top_k ?? undefined,
    seed: body.seed ?? undefined,
    stop: typeof body.stop === 'string' ? [body.stop] : (body.stop ?? []),
  }
}

const toUsage = ({ usage: { promptTokens, completionTokens } }: Finish) => ({
  prompt_tokens: promptTokens,
  completion_tokens: completionTokens,
  total_tokens: promptTokens + completionTokens,
})

/** Waits until the request is accepted; what is wrong with it is thrown here, while a status can still say so. */
async function accept(events: Events, model: string): Promise<Identity> {
  const first = await events.next()
  if (first.done || first.value.type !== 'start')
    throw new Error('a generation must begin with its start event')
  return {
    id: `chatcmpl-${randomUUID().replaceAll('-', '')}`,
    created: Math.floor(Date.now() / 1000),
    model,
    system_fingerprint: first.value.systemFingerprint,
  }
}

const endedEarly = () => new Error('a generation ended without its finish event')

async function collect(events: Events, identity: Identity): Promise<ChatCompletion> {
  let content = ''
  for (let next = await events.next(); !next.done; next = await events.next()) {
    const event = next.value
    if (event.type === 'text') content += event.text
    if (event.type !== 'finish') continue
    const message = { role: 'assistant' as const, content, refusal: null }
    return {
      ...identity,
      object: 'chat.completion',
      choices: [{ index: 0, message, logprobs: null, finish_reason: event.reason }],
      usage: toUsage(event),
    }
  }
  throw endedEarly()
}

type Delta = ChatCompletionChunk['choices'][number]['delta']

/** The chunks of one answer: the role first, text, the finish reason, and the usage where it was asked for. */
async function* chunksOf(
  events: Events,
  identity: Identity,
  includeUsage: boolean,
): AsyncGenerator<ChatCompletionChunk> {
  const base = { ...identity, object: 'chat.completion.chunk' as const }
  const chunk = (delta: Delta, finish_reason: Finish['reason'] | null = null): ChatCompletionChunk => ({
    ...base,
    choices: [{ index: 0, delta, logprobs: null, finish_reason }],
    ...(includeUsage ? { usage: null } : {}),
  })
  yield chunk({ role: 'assistant', content: '' })
  for (let next = await events.next(); !next.done; next = await events.next()) {
    const event = next.value
    if (event.type === 'text') yield chunk({ content: event.text })
    if (event.type !== 'finish') continue
    yield chunk({}, event.reason)
    if (includeUsage) yield { ...base, choices: [], usage: toUsage(event) }
    return
  }
  throw endedEarly()
}

/** The chunks as frames, then the end mark that OpenAI's clients wait for. */
async function* framesOf(
  chunks: AsyncGenerator<ChatCompletionChunk>,
  events: Events,
  toErrorFrame: (error: unknown) => string,
): AsyncGenerator<string> {
  try {
    for await (const chunk of chunks) yield dataFrame(chunk)
    yield 'data: [DONE]\n\n'
  } catch (error) {
    yield toErrorFrame(error)
  } finally {
    await events.return?.()
  }
}

/**
 * /v1/chat/completions, as OpenAI's clients know it. The generation is aborted as soon as the client has gone, streamed or
 * not.
 */
export function chatRoutes(service: ChatService, streams: StreamSettings): OpenAPIHono {
  return new OpenAPIHono({ defaultHook }).openapi(complete, async (c) => {
    const body = c.req.valid('json')
    const abort = followRequest(c)
    const events = service.complete(toChatRequest(body), abort.signal)[Symbol.asyncIterator]()
    const identity = await accept(events, body.model)
    if (!body.stream) return c.json(await collect(events, identity), 200)
    const chunks = chunksOf(events, identity, body.stream_options?.include_usage ?? false)
    const frames = framesOf(chunks, events, (error) => errorFrame(c, error, streams))
    return sendEvents(c, frames, abort, streams.keepAliveMs)
  })
}
