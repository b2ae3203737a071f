/** The same streaming load against any OpenAI-compatible server. */
export const PROMPT_TOKENS = 145
export const ANSWER_TOKENS = 128

export interface LoadResult {
  /** Tokens of all answers per second, from the first request to the last token. */
  tokensPerSecond: number
  /** Median time to the first token, in milliseconds. */
  firstTokenMs: number
  /** The longest that a running stream had to wait for its next piece, in milliseconds. */
  longestPauseMs: number
}

/** A prompt that shares no beginning with another of a different seed. */
export function promptTokens(length: number, seed: number): number[] {
  return Array.from({ length }, (_, index) => 1000 + ((index * 37 + seed * 7919) % 20_000))
}

/** `concurrent` greedy completions at once. `extra` is what only this server understands. */
export async function load(
  url: string,
  model: string,
  concurrent: number,
  seed: number,
  extra: object = {},
): Promise<LoadResult> {
  const start = performance.now()
  const streams = await Promise.all(
    Array.from({ length: concurrent }, (_, index) =>
      stream(url, {
        model,
        prompt: promptTokens(PROMPT_TOKENS, seed * 100 + index),
        max_tokens: ANSWER_TOKENS,
        temperature: 0,
        ignore_eos: true,
        stream: true,
        ...extra,
      }),
    ),
  )
  const seconds = (performance.now() - start) / 1000
  const first = streams.map(({ firstMs }) => firstMs).sort((a, b) => a - b)
  return {
    tokensPerSecond: (concurrent * ANSWER_TOKENS) / seconds,
    firstTokenMs: first[Math.floor(first.length / 2)]!,
    longestPauseMs: Math.max(...streams.map(({ pauseMs }) => pauseMs)),
  }
}

async function stream(url: string, body: object): Promise<{ firstMs: number; pauseMs: number }> {
  const start = performance.now()
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  if (!response.ok) throw new Error(`${url}: ${response.status} ${await response.text()}`)
  let firstMs = 0
  let pauseMs = 0
  let last = 0
  for await (const _ of response.body!) {
    const now = performance.now()
    if (firstMs === 0) firstMs = now - start
    else pauseMs = Math.max(pauseMs, now - last)
    last = now
  }
  return { firstMs, pauseMs }
}
