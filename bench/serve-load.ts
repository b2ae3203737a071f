/** The same streaming load against any OpenAI-compatible server. */
import { setTimeout as sleep } from 'node:timers/promises'

export const PROMPT_TOKENS = 145
export const ANSWER_TOKENS = 128

export interface LoadResult {
  /** Tokens of all answers per second, from the first request to the last token. */
  tokensPerSecond: number
  /** Median time to the first token, in milliseconds. */
  firstTokenMs: number
  /** How long running streams had to wait for their next pieces, in milliseconds: the longest, and 99 % of them. */
  longestPauseMs: number
  pauseMs99: number
}

/** How requests come. */
export interface Arrivals {
  /** Milliseconds between one request and the next. */
  everyMs: number
  promptTokens: number
}

/** A prompt that shares no beginning with another of a different seed. */
export function promptTokens(length: number, seed: number): number[] {
  return Array.from({ length }, (_, index) => 1000 + ((index * 37 + seed * 7919) % 20_000))
}

/** `concurrent` greedy completions, at once unless they arrive otherwise. `extra` is what only this server understands. */
export async function load(
  url: string,
  model: string,
  concurrent: number,
  seed: number,
  extra: object = {},
  arrivals: Arrivals = { everyMs: 0, promptTokens: PROMPT_TOKENS },
): Promise<LoadResult> {
  const start = performance.now()
  const streams = await Promise.all(
    Array.from({ length: concurrent }, async (_, index) => {
      await sleep(index * arrivals.everyMs)
      return stream(url, {
        model,
        prompt: promptTokens(arrivals.promptTokens, seed * 100 + index),
        max_tokens: ANSWER_TOKENS,
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
    tokensPerSecond: (concurrent * ANSWER_TOKENS) / seconds,
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
