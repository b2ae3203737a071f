/** The same streaming load against any OpenAI-compatible server. */
import { setTimeout as sleep } from 'node:timers/promises'

export const PROMPT_TOKENS = 145
export const ANSWER_TOKENS = 128
const DISTINCT = 20_000

/** How much is asked for. */
export interface Sizes {
  promptTokens: number
  answerTokens: number
  /** Different tokens in prompts; small vocabularies have few. */
  distinct: number
  /** Contexts after which the engine alone decodes, over so many tokens twice, and the prompt that it alone reads. */
  contexts: readonly number[]
  stretch: number
  prefill: number
  /** Prompts that come while others' answers run. */
  longPrompt: number
  idleConnections: number
  flood: number
}

/** What results are of. */
export const FULL: Sizes = {
  promptTokens: PROMPT_TOKENS,
  answerTokens: ANSWER_TOKENS,
  distinct: DISTINCT,
  contexts: [128, 512, 2048],
  stretch: 32,
  prefill: 512,
  longPrompt: 768,
  idleConnections: 64,
  flood: 1000,
}

/** Whether it runs at all. */
export const QUICK: Sizes = {
  promptTokens: 8,
  answerTokens: 4,
  distinct: 1000,
  contexts: [8],
  stretch: 2,
  prefill: 16,
  longPrompt: 24,
  idleConnections: 4,
  flood: 4,
}

export interface LoadResult {
  /** Tokens of all answers per second, from the first request to the last token. */
  tokensPerSecond: number
  /** Median time to the first token, in milliseconds. */
  firstTokenMs: number
  /** How long running streams had to wait for their next pieces, in milliseconds: the longest, and 99 % of them. */
  longestPauseMs: number
  pauseMs99: number
}

export interface LoadOptions {
  /** Fields that only this server understands. */
  extra?: object
  /** Milliseconds between one request and the next. */
  everyMs?: number
}

/** A prompt that shares no beginning with another of a different seed. */
export function promptTokens(length: number, seed: number, distinct = DISTINCT): number[] {
  return Array.from({ length }, (_, index) => 1000 + ((index * 37 + seed * 7919) % distinct))
}

/** `concurrent` greedy completions, at once unless they arrive otherwise. */
export async function load(
  url: string,
  model: string,
  concurrent: number,
  seed: number,
  { promptTokens: promptLength, answerTokens, distinct }: Sizes,
  { extra = {}, everyMs = 0 }: LoadOptions = {},
): Promise<LoadResult> {
  const start = performance.now()
  const streams = await Promise.all(
    Array.from({ length: concurrent }, async (_, index) => {
      await sleep(index * everyMs)
      return stream(url, {
        model,
        prompt: promptTokens(promptLength, seed * 100 + index, distinct),
        max_tokens: answerTokens,
        temperature: 0,
        ignore_eos: true,
        stream: true,
        ...extra,
      })
    }),
  )
  const seconds = (performance.now() - start) / 1000
  const pauses = streams.flatMap((each) => each.pauses).sort((a, b) => a - b)
  const first = streams.map(({ firstMs }) => firstMs).sort((a, b) => a - b)
  return {
    tokensPerSecond: (concurrent * answerTokens) / seconds,
    firstTokenMs: first[Math.floor(first.length / 2)]!,
    longestPauseMs: pauses.at(-1)!,
    pauseMs99: pauses[Math.floor(0.99 * pauses.length)]!,
  }
}

async function stream(url: string, body: object): Promise<{ firstMs: number; pauses: number[] }> {
  const start = performance.now()
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  if (!response.ok) throw new Error(`${url}: ${response.status} ${await response.text()}`)
  let firstMs = 0
  const pauses: number[] = []
  let last = 0
  for await (const _ of response.body!) {
    const now = performance.now()
    if (firstMs === 0) firstMs = now - start
    else pauses.push(now - last)
    last = now
  }
  return { firstMs, pauses }
}
