import { createHash } from 'node:crypto'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import type { TemplateMessage } from '../../engine/text/chat-template.ts'
import type { ChatEvent, ChatMessage, ChatRequest, ChatService } from '../../routes/services.ts'
import { ADAPTER_WEIGHTS } from '../models/checkpoints.ts'
import type { ModelEntry } from '../models/registry.ts'
import type { ServiceContext } from './context.ts'

/** Answers chat requests with any model that the registry knows. */
export function chatService(context: ServiceContext): ChatService {
  return {
    async *complete(request, signal) {
      const model = await context.models.resolve(request.model)
      yield* measured(context, model, answer(context, model, request, signal))
    },
  }
}

async function* answer(
  { hosts, version }: ServiceContext,
  model: ModelEntry,
  request: ChatRequest,
  signal: AbortSignal,
): AsyncGenerator<ChatEvent> {
  const { messages, maxTokens, temperature, topP, topK, seed, stop } = request
  const { baseFolder, adapterFolder, template } = model
  const rendered = messages.map(toTemplateMessage)
  const sampling = { temperature, topP, topK, seed }
  const generation = { baseFolder, adapterFolder, template, messages: rendered, ...sampling, maxTokens, stop }
  for await (const event of hosts.generate(generation, signal)) {
    if (event.type === 'start') yield { type: 'start', systemFingerprint: fingerprint(model, version) }
    else if (event.type === 'text') yield { type: 'text', text: event.text }
    else {
      const { reason, promptTokens, completionTokens } = event
      yield { type: 'finish', reason, usage: { promptTokens, completionTokens } }
    }
  }
}

function toTemplateMessage({ role, content, name, toolCallId }: ChatMessage): TemplateMessage {
  return { role, content, ...(name && { name }), ...(toolCallId && { tool_call_id: toolCallId }) }
}

/** Changes when the weights, the adapter or this version changes: what same-seed answers depend on. */
function fingerprint({ baseFolder, adapterFolder }: ModelEntry, version: string): string {
  const files = [
    join(baseFolder, 'config.json'),
    ...(adapterFolder ? [join(adapterFolder, ADAPTER_WEIGHTS)] : []),
  ]
  const stamps = files.map((file) => {
    const info = statSync(file, { throwIfNoEntry: false })
    return `${file}:${info?.mtimeMs}:${info?.size}`
  })
  const hash = createHash('sha256')
    .update(JSON.stringify([version, stamps]))
    .digest('hex')
  return `fp_${hash.slice(0, 10)}`
}

/** Passes events on and counts them. */
async function* measured(
  { metrics }: ServiceContext,
  { id }: ModelEntry,
  events: AsyncIterable<ChatEvent>,
): AsyncGenerator<ChatEvent> {
  const start = performance.now()
  const label = { model_name: id }
  let lastText: number | undefined
  let running = true
  const ended = () => {
    if (running) metrics.chatsRunning.dec()
    running = false
  }
  metrics.chatsRunning.inc()
  try {
    for await (const event of events) {
      const now = performance.now()
      if (event.type === 'text') {
        if (lastText === undefined) metrics.timeToFirstToken.observe(label, (now - start) / 1000)
        else metrics.interTokenLatency.observe(label, (now - lastText) / 1000)
        lastText = now
      } else if (event.type === 'finish') {
        ended() // a reader may not come back after the last event
        metrics.promptTokens.inc(label, event.usage.promptTokens)
        metrics.generationTokens.inc(label, event.usage.completionTokens)
        metrics.chatsSucceeded.inc({ ...label, finished_reason: event.reason })
        metrics.chatLatency.observe(label, (now - start) / 1000)
      }
      yield event
    }
  } finally {
    ended()
  }
}
