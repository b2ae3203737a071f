import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { MODEL, type RealServer, startRealServer } from './server.ts'

const messages = [{ role: 'user' as const, content: 'Who is Mia?' }]
/** As long as the context allows. */
const long = { model: MODEL, messages, ignore_eos: true, temperature: 0 }

async function metric(server: RealServer, name: string): Promise<number> {
  const text = await (await fetch(`${server.url}/metrics`)).text()
  const line = text.split('\n').find((each) => each.startsWith(name))
  return line === undefined ? 0 : Number(line.slice(line.lastIndexOf(' ') + 1))
}

const until = (check: () => Promise<boolean>) =>
  vi.waitFor(async () => expect(await check()).toBe(true), { timeout: 20_000, interval: 10 })

describe('The life of a model over HTTP', () => {
  let server: RealServer
  let client: OpenAI
  const post = (body: object, signal?: AbortSignal) =>
    fetch(`${server.baseURL}/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal: signal ?? null,
    })

  beforeAll(async () => {
    server = await startRealServer((settings) => {
      settings.chat.preload = [MODEL]
      settings.limits.queuedChats = 2
    })
    client = new OpenAI({ baseURL: server.baseURL, apiKey: 'unused', maxRetries: 0 })
  })
  afterAll(() => server.close())

  it('answers 503 on /health until the preloaded model is there; /v1/models tells its state and memory', async () => {
    const early = await fetch(`${server.url}/health`)
    expect(early.status).toBe(503)
    expect(await early.json()).toMatchObject({ error: { type: 'unavailable_error', code: 'starting' } })
    await until(async () => (await fetch(`${server.url}/health`)).status === 200)
    const model = await client.models.retrieve(MODEL)
    expect(model).toMatchObject({ state: 'ready', root: MODEL })
    expect((model as unknown as { memory_bytes: number }).memory_bytes).toBeGreaterThan(10_000_000)
  })

  it.each([true, false])('stops generating when the client goes away (stream: %s)', async (stream) => {
    const aborts = () =>
      metric(server, `vllm:request_success_total{model_name="${MODEL}",finished_reason="abort"}`)
    const before = await aborts()
    const abort = new AbortController()
    const response = post({ ...long, stream }, abort.signal)
    if (stream) await (await response).body!.getReader().read()
    else {
      response.catch(() => {})
      await until(async () => (await metric(server, 'vllm:num_requests_running')) === 1)
    }
    abort.abort()
    await until(async () => (await aborts()) === before + 1)
    await until(async () => (await metric(server, 'vllm:num_requests_running')) === 0)
  })

  it('answers 503 with Retry-After when the queue is full, and never resets', async () => {
    const abort = new AbortController()
    const responses = await Promise.all(
      Array.from({ length: 24 }, () => post({ ...long, max_tokens: 150, stream: true }, abort.signal)),
    )
    const refused = responses.filter(({ status }) => status === 503)
    expect(refused.length).toBeGreaterThan(0)
    expect(responses.every(({ status }) => status === 200 || status === 503)).toBe(true)
    for (const response of refused) {
      expect(response.headers.get('retry-after')).toMatch(/^\d+$/)
      expect(await response.json()).toMatchObject({
        error: { code: 'queue_full', type: 'unavailable_error' },
      })
    }
    const texts = await Promise.all(
      responses.filter(({ status }) => status === 200).map((each) => each.text()),
    )
    expect(texts.every((text) => text.endsWith('data: [DONE]\n\n'))).toBe(true)
  })

  it('ends a stream with an error event when the engine dies, and answers the next request', async () => {
    const response = await post({ ...long, stream: true })
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
    let text = (await reader.read()).value!
    process.kill(server.enginePid(), 'SIGKILL')
    for (let next = await reader.read(); !next.done; next = await reader.read()) text += next.value
    const last = text.trimEnd().split('\n\n').at(-1)!
    expect(JSON.parse(last.replace(/^data: /, ''))).toMatchObject({
      error: { code: 'engine_crashed', type: 'unavailable_error' },
    })
    const again = await client.chat.completions.create({ model: MODEL, messages, temperature: 0 })
    expect(again.choices[0]!.message.content).toContain('Mia')
  })

  it("counts under vLLM's names", async () => {
    await client.chat.completions.create({ model: MODEL, messages, temperature: 0 })
    await client.chat.completions.create({ model: MODEL, messages, temperature: 0 })
    const text = await (await fetch(`${server.url}/metrics`)).text()
    for (const name of [
      ...['num_requests_running', 'num_requests_waiting', 'kv_cache_usage_perc'],
      ...['prefix_cache_queries_total', 'prefix_cache_hits_total', 'prompt_tokens_total'],
      ...['generation_tokens_total', 'time_to_first_token_seconds_bucket', 'inter_token_latency_seconds_sum'],
      ...['e2e_request_latency_seconds_count', 'request_queue_time_seconds_count'],
    ]) {
      expect(text).toMatch(new RegExp(`^vllm:${name}\\{.*model_name="${MODEL}".*\\} `, 'm'))
    }
    expect(text).toContain(`vllm:request_success_total{model_name="${MODEL}",finished_reason="stop"}`)
  })
})

describe('A server whose model cannot be preloaded', () => {
  it('says so on /health instead of being healthy, and answers with other models', async () => {
    const server = await startRealServer((settings) => {
      settings.chat.preload = ['absent']
    })
    try {
      const health = async () =>
        (await (await fetch(`${server.url}/health`)).json()) as { error: { code: string; message: string } }
      await vi.waitFor(async () => expect((await health()).error.code).toBe('preload_failed'))
      expect((await health()).error.message).toContain('absent (model_not_found)')
      const client = new OpenAI({ baseURL: server.baseURL, apiKey: 'unused', maxRetries: 0 })
      const answer = await client.chat.completions.create({ model: MODEL, messages, max_tokens: 1 })
      expect(answer.choices).toHaveLength(1)
    } finally {
      await server.close()
    }
  })
})
