import type { TemplateMessage } from '../../engine/text/chat-template.ts'
import type {
  ChatEvent,
  ChatMessage,
  ChatRequest,
  ChatService,
  Conversation,
} from '../../routes/generation-services.ts'
import type { ChatInput, GenerateRequest } from '../engine-host/protocol.ts'
import type { ModelEntry } from '../models/registry.ts'
import { afterStarts, CONCURRENT_ANSWERS, interleave } from './choices.ts'
import type { ServiceContext } from './context.ts'
import { checkBudget, fingerprint, generationSettings, UsageCounter } from './generation.ts'
import { measured } from './measured.ts'

/** Answers chat requests with any model that the registry knows. */
export function chatService(context: ServiceContext): ChatService {
  return {
    async *complete(request, signal) {
      const model = await context.models.resolve(request.model)
      checkBudget(context.settings, model, request)
      yield* answer(context, model, request, signal)
    },
    async render({ addGenerationPrompt, ...conversation }, signal) {
      const { baseFolder, template } = await context.models.resolve(conversation.model)
      const input = toChatInput(conversation)
      const question = { kind: 'render' as const, template, addGenerationPrompt, ...input }
      return context.hosts.call(baseFolder, question, signal)
    },
  }
}

async function* answer(
  context: ServiceContext,
  model: ModelEntry,
  request: ChatRequest,
  signal: AbortSignal,
): AsyncGenerator<ChatEvent> {
  const { hosts, version } = context
  const n = request.n ?? 1
  const begin = (choice: number) => (abort: AbortSignal) =>
    measured(context, model, hosts.generate(toGenerateRequest(model, request, choice), abort))
  const answers = Array.from({ length: n }, (_, choice) => begin(choice))
  const usage = new UsageCounter(n, request.prediction !== undefined)
  let started = false
  const concurrency = Math.min(n, CONCURRENT_ANSWERS)
  for await (const { choice, event } of afterStarts(interleave(answers, concurrency, signal), concurrency)) {
    if (event.type === 'start') {
      if (!started) yield { type: 'start', systemFingerprint: fingerprint(model, version) }
      started = true
    } else if (event.type === 'finish') {
      usage.add(choice, event)
      yield { type: 'finish', choice, reason: event.reason }
    } else yield { ...event, choice }
  }
  yield { type: 'usage', usage: usage.usage }
}

function toGenerateRequest(model: ModelEntry, request: ChatRequest, choice: number): GenerateRequest {
  const { baseFolder, adapterFolder, template } = model
  const { responseFormat, ...rest } = request
  return {
    baseFolder,
    adapterFolder,
    template,
    ...toChatInput(request),
    ...generationSettings(settingsOf(rest), choice),
    responseFormat,
  }
}

/** What is left of a request beside its conversation. */
function settingsOf({
  model: _model,
  messages: _messages,
  tools: _tools,
  toolChoice: _choice,
  parallelToolCalls: _parallel,
  templateVariables: _variables,
  reasoningEffort: _effort,
  ...settings
}: Omit<ChatRequest, 'responseFormat'>) {
  return settings
}

function toChatInput(conversation: Conversation): ChatInput {
  const { messages, tools, toolChoice, parallelToolCalls, templateVariables, reasoningEffort } = conversation
  return {
    messages: messages.map(toTemplateMessage),
    tools: tools?.map((definition) => ({ type: 'function' as const, function: definition })),
    toolChoice,
    parallelToolCalls,
    templateVariables,
    reasoningEffort,
  }
}

function toTemplateMessage(message: ChatMessage): TemplateMessage {
  const { role, content, name, toolCallId, toolCalls, reasoning } = message
  return {
    role,
    content,
    ...(name && { name }),
    ...(toolCallId && { tool_call_id: toolCallId }),
    ...(reasoning && { reasoning_content: reasoning }),
    ...(toolCalls && {
      tool_calls: toolCalls.map(({ id, ...call }) => ({ id, type: 'function' as const, function: call })),
    }),
  }
}
