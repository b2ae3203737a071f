import type {
  CompletionEvent,
  CompletionLogprob,
  CompletionRequest,
  CompletionService,
} from '../../routes/generation-services.ts'
import type { AnswerEvent, ShownLogprob } from '../engine-host/protocol.ts'
import type { ModelEntry } from '../models/registry.ts'
import { afterStarts, CONCURRENT_ANSWERS, interleave } from './choices.ts'
import type { ServiceContext } from './context.ts'
import { checkBudget, fingerprint, generationSettings, UsageCounter } from './generation.ts'
import { measured } from './measured.ts'

/** Goes on with texts, with any model that the registry knows. */
export function completionService(context: ServiceContext): CompletionService {
  return {
    async *complete(request, signal) {
      const model = await context.models.resolve(request.model)
      checkBudget(context.settings, model, request, request.prompts.length)
      yield* complete(context, model, request, signal)
    },
  }
}

/** An echoed prompt as the first part of its choice. */
interface Echo {
  type: 'echo'
  text: string
  logprobs?: CompletionLogprob[]
}

async function* complete(
  context: ServiceContext,
  model: ModelEntry,
  request: CompletionRequest,
  signal: AbortSignal,
): AsyncGenerator<CompletionEvent> {
  const n = request.n ?? 1
  const echoes = new Map<number, Echo>()
  const begin = (choice: number) => (abort: AbortSignal) =>
    answer(context, model, request, choice, echoes, abort)
  const answers = Array.from({ length: request.prompts.length * n }, (_, choice) => begin(choice))
  const concurrency = Math.min(answers.length, CONCURRENT_ANSWERS)
  const usage = new UsageCounter(n)
  let started = false
  for await (const item of afterStarts(interleave(answers, concurrency, signal), concurrency)) {
    const { choice, event } = item
    if (event.type === 'start') {
      if (!started) yield { type: 'start', systemFingerprint: fingerprint(model, context.version) }
      started = true
      const echo = echoes.get(choice)
      echoes.delete(choice)
      if (echo) yield { type: 'text', choice, text: echo.text, logprobs: echo.logprobs }
    } else if (event.type === 'finish') {
      usage.add(choice, event)
      yield { type: 'finish', choice, reason: event.reason === 'length' ? 'length' : 'stop' }
    } else if (event.type === 'text') {
      yield { type: 'text', choice, text: event.text, logprobs: event.logprobs?.map(toCompletionLogprob) }
    }
  }
  yield { type: 'usage', usage: usage.usage }
}

/** One choice: its prompt's echo is ready when its start event comes. */
async function* answer(
  context: ServiceContext,
  model: ModelEntry,
  request: CompletionRequest,
  choice: number,
  echoes: Map<number, Echo>,
  signal: AbortSignal,
): AsyncGenerator<AnswerEvent, void, void> {
  const { baseFolder, adapterFolder } = model
  const { prompts, echo, model: _, ...settings } = request
  const n = request.n ?? 1
  const prompt = prompts[Math.floor(choice / n)]!
  let promptTokens = 0
  if (echo) {
    const echoed = await readEcho(context, model, prompt, settings.logprobs, signal)
    echoes.set(choice, echoed.echo)
    promptTokens = echoed.promptTokens
  }
  if (settings.maxTokens === 0) {
    yield { type: 'start', promptTokens }
    const counts = { promptTokens, completionTokens: 0, cachedTokens: 0, reasoningTokens: 0 }
    yield { type: 'finish', reason: 'length', ...counts }
    return
  }
  const generation = {
    baseFolder,
    adapterFolder,
    prompt,
    ...generationSettings(settings, choice % n),
  }
  yield* measured(context, model, context.hosts.generate(generation, signal))
}

async function readEcho(
  { hosts }: ServiceContext,
  { baseFolder, adapterFolder }: ModelEntry,
  prompt: string | number[],
  logprobs: number | undefined,
  signal: AbortSignal,
): Promise<{ echo: Echo; promptTokens: number }> {
  if (logprobs !== undefined) {
    const question = { kind: 'score' as const, prompt, top: logprobs, adapterFolder }
    const { text, tokens } = await hosts.call(baseFolder, question, signal)
    const entries = tokens.map((entry, index) =>
      index === 0 ? { ...toCompletionLogprob(entry), logprob: null, top: null } : toCompletionLogprob(entry),
    )
    return { echo: { type: 'echo', text, logprobs: entries }, promptTokens: tokens.length }
  }
  if (typeof prompt !== 'string') {
    const { text } = await hosts.call(baseFolder, { kind: 'detokenize', tokens: prompt }, signal)
    return { echo: { type: 'echo', text }, promptTokens: prompt.length }
  }
  const question = { kind: 'tokenize' as const, text: prompt, addSpecialTokens: true }
  const { tokens } = await hosts.call(baseFolder, question, signal)
  return { echo: { type: 'echo', text: prompt }, promptTokens: tokens.length }
}

function toCompletionLogprob({ token, bytes, logprob, top }: ShownLogprob): CompletionLogprob {
  return { token, bytes, logprob, top: top.map((other) => ({ token: other.token, logprob: other.logprob })) }
}
