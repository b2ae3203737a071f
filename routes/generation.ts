import { randomUUID } from 'node:crypto'
import type { z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import type { GenerationSettings, GenerationUsage } from './generation-services.ts'
import type { samplingFields, usage } from './schemas/generation.ts'
import { dataFrame, errorFrame, type StreamSettings, sendEvents } from './sse.ts'

/** What every object of one answer repeats. */
export interface Identity {
  id: string
  created: number
  model: string
  system_fingerprint: string
}

type SamplingBody = z.infer<z.ZodObject<typeof samplingFields>>

/** The common fields in the application's terms: null and absent are the same. */
export function toSettings(body: SamplingBody): GenerationSettings {
  return {
    n: body.n ?? undefined,
    minTokens: body.min_tokens ?? undefined,
    ignoreEos: body.ignore_eos ?? undefined,
    temperature: body.temperature ?? undefined,
    topP: body.top_p ?? undefined,
    topK: body.top_k ?? undefined,
    minP: body.min_p ?? undefined,
    repetitionPenalty: body.repetition_penalty ?? undefined,
    presencePenalty: body.presence_penalty ?? undefined,
    frequencyPenalty: body.frequency_penalty ?? undefined,
    logitBias: body.logit_bias ?? undefined,
    seed: body.seed ?? undefined,
    stop: typeof body.stop === 'string' ? [body.stop] : (body.stop ?? []),
  }
}

export function toUsage(counts: GenerationUsage): z.infer<typeof usage> {
  const { promptTokens, completionTokens, cachedTokens } = counts
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
    completion_tokens_details: {
      reasoning_tokens: counts.reasoningTokens,
      accepted_prediction_tokens: counts.acceptedPredictionTokens,
      rejected_prediction_tokens: counts.rejectedPredictionTokens,
    },
  }
}

/** Waits until the request is accepted; what is wrong with it is thrown here, while a status can still say so. */
export async function accept<E extends { type: string }>(
  events: AsyncIterator<E>,
  prefix: string,
  model: string,
): Promise<Identity> {
  const first = await events.next()
  const start = first.done ? undefined : (first.value as { type: string; systemFingerprint?: string })
  if (start?.type !== 'start') throw new Error('a generation must begin with its start event')
  return {
    id: `${prefix}-${randomUUID().replaceAll('-', '')}`,
    created: Math.floor(Date.now() / 1000),
    model,
    system_fingerprint: start.systemFingerprint!,
  }
}

/** The events behind the start, for a loop that may end before them. */
export async function* rest<E>(events: AsyncIterator<E>): AsyncGenerator<E, void, void> {
  try {
    for (let next = await events.next(); !next.done; next = await events.next()) yield next.value
  } finally {
    await events.return?.()
  }
}

export const endedEarly = () => new Error('a generation ended without its usage event')

/** Answers with chunks as frames, then the end mark that OpenAI's clients wait for. */
export function sendChunks(
  c: Context,
  chunks: AsyncGenerator<unknown>,
  abort: AbortController,
  streams: StreamSettings,
): Response {
  const frames = framesOf(chunks, (error) => errorFrame(c, error, streams))
  return sendEvents(c, frames, abort, streams.keepAliveMs)
}

async function* framesOf(
  chunks: AsyncGenerator<unknown>,
  toErrorFrame: (error: unknown) => string,
): AsyncGenerator<string> {
  try {
    for await (const chunk of chunks) yield dataFrame(chunk)
    yield 'data: [DONE]\n\n'
  } catch (error) {
    yield toErrorFrame(error)
  }
}
