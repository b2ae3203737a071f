import { fork } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { EngineError } from '../../../engine/errors.ts'
import { DEFAULT_MAX_RUNNING } from '../../../engine/generate/scheduler.ts'
import { ON_CPU } from '../../../src/device/devices.ts'
import { EngineHosts, type EngineHostsOptions } from '../../../src/engine-host/client.ts'
import type { AnswerEvent, GenerateRequest } from '../../../src/engine-host/protocol.ts'
import { tinyAdapter, tinyLlama } from './tiny-llama.ts'

/** Long enough never to end within a test. */
const CONTEXT = 30_000
const MESSAGES = [{ role: 'user', content: 'Say something.' }]

let base: string
let otherBase: string
let adapter: string
/** For the tests that leave their child as they found it. */
let common: EngineHosts
let open: EngineHosts[] = []

beforeAll(() => {
  base = tinyLlama(1, CONTEXT)
  otherBase = tinyLlama(2, CONTEXT)
  adapter = tinyAdapter(base)
  common = new EngineHosts({ threads: 1 })
})
afterEach(async () => {
  await Promise.all(open.map((hosts) => hosts.close()))
  open = []
})
afterAll(async () => {
  await common.close()
  for (const folder of [base, otherBase]) rmSync(folder, { recursive: true })
})

function engineHosts(options: EngineHostsOptions = {}): EngineHosts {
  const hosts = new EngineHosts({ threads: 1, ...options })
  open.push(hosts)
  return hosts
}

type Asked = Partial<Omit<GenerateRequest, 'messages' | 'prompt'>>

function chat(asked: Asked = {}): GenerateRequest {
  return { baseFolder: base, messages: MESSAGES, maxTokens: 8, temperature: 0, ...asked }
}

async function answer(events: AsyncIterable<AnswerEvent>): Promise<string> {
  let text = ''
  for await (const event of events) if (event.type === 'text') text += event.text
  return text
}

/** Reads up to the first text and leaves the rest to `reading`, which settles when the stream ends. */
async function begin(events: AsyncGenerator<AnswerEvent>): Promise<{ reading: Promise<string> }> {
  for (;;) {
    const { value, done } = await events.next()
    if (done) throw new Error('the stream ended before its first text')
    if (value.type === 'text') break
  }
  const reading = answer(events)
  reading.catch(() => {}) // tests look at it later
  return { reading }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

describe('EngineHosts', () => {
  it('loads a folder again that was written anew since', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'anneal-rewritten-'))
    const hosts = engineHosts()
    const written = async (from: string) => {
      cpSync(from, folder, { recursive: true })
      return answer(hosts.generate(chat({ baseFolder: folder })))
    }
    const [first, second] = [await written(base), await written(otherBase)]
    const expected = await answer(hosts.generate(chat({ baseFolder: otherBase })))
    expect(second).toBe(expected)
    expect(second).not.toBe(first)
    rmSync(folder, { recursive: true })
  })

  it('answers a conversation with start, text and finish, and counts the tokens', async () => {
    const events: AnswerEvent[] = []
    for await (const event of common.generate(chat())) events.push(event)
    const rendered = '<|im_start|>user\nSay something.<|im_end|>\n<|im_start|>assistant\n'
    const promptTokens = rendered.replaceAll(/<\|.*?\|>/g, '.').length
    expect(events[0]).toEqual({ type: 'start', promptTokens })
    expect(events.at(-1)).toMatchObject({
      type: 'finish',
      reason: 'length',
      promptTokens,
      completionTokens: 8,
    })
    const text = events.map((event) => (event.type === 'text' ? event.text : '')).join('')
    expect(text).toMatch(/^[a-z]{8}$/)
    expect(common.loaded()).toMatchObject([{ baseFolder: base, state: 'ready', activeRequests: 0 }])
    expect(common.loaded()[0]!.memoryBytes).toBeGreaterThan(10e6)
  })

  it('gives the same text for the same seed, and the same prompt as text or as tokens', async () => {
    const sample = (seed: number) => answer(common.generate(chat({ temperature: 1, seed, maxTokens: 24 })))
    const [first, again, other] = await Promise.all([sample(3), sample(3), sample(4)])
    expect(again).toBe(first)
    expect(other).not.toBe(first)
    const plain = { baseFolder: base, temperature: 0, maxTokens: 8 }
    const text = await answer(common.generate({ ...plain, prompt: 'abc' }))
    expect(await answer(common.generate({ ...plain, prompt: [97, 98, 99] }))).toBe(text)
  })

  it('answers with an adapter over the loaded base, beside the base itself', async () => {
    const [plain, adapted] = await Promise.all([
      answer(common.generate(chat({ maxTokens: 24 }))),
      answer(common.generate(chat({ maxTokens: 24, adapterFolder: adapter }))),
    ])
    expect(adapted).not.toBe(plain)
    expect(common.loaded()).toHaveLength(1)
    expect(await answer(common.generate(chat({ maxTokens: 24 })))).toBe(plain)
  })

  it.each([
    ['a missing adapter', { adapterFolder: '/nowhere' }, { kind: 'not_found', code: 'adapter_not_found' }],
    ['a wrong sampling value', { topP: 2 }, { kind: 'invalid', param: 'top_p' }],
    ['an unknown template', { template: 'nope' }, { kind: 'invalid', code: 'unknown_template' }],
    [
      'a prompt beyond the context',
      { messages: undefined, prompt: 'x'.repeat(CONTEXT) },
      { kind: 'too_large' },
    ],
  ])('refuses %s with the error of the engine, and goes on', async (_, wrong, error) => {
    const request = { ...chat(), ...wrong } as GenerateRequest
    await expect(common.generate(request).next()).rejects.toMatchObject({ name: 'EngineError', ...error })
    expect(await answer(common.generate(chat()))).toHaveLength(8)
  })

  it('says why a model cannot be loaded, and keeps no process for it', async () => {
    const hosts = engineHosts()
    const request = chat({ baseFolder: `${base}/nothing` })
    await expect(hosts.generate(request).next()).rejects.toMatchObject({
      kind: 'not_found',
      message: expect.stringContaining('tokenizer.json'),
    })
    expect(hosts.loaded()).toEqual([])
  })

  it('stops generating when the signal is aborted: the places are free for others', async () => {
    const abort = new AbortController()
    const endless = Array.from({ length: DEFAULT_MAX_RUNNING }, () =>
      begin(common.generate(chat({ maxTokens: CONTEXT }), abort.signal)),
    )
    const started = await Promise.all(endless)
    const next = answer(common.generate(chat()))
    abort.abort()
    for (const { reading } of started) await expect(reading).rejects.toMatchObject({ kind: 'cancelled' })
    expect(await next).toHaveLength(8)
    expect(common.loaded()[0]!.activeRequests).toBe(0)
  })

  it('stops generating when the reader leaves', async () => {
    for await (const event of common.generate(chat({ maxTokens: CONTEXT }))) if (event.type === 'text') break
    expect(common.loaded()[0]!.activeRequests).toBe(0)
  })

  it('refuses what neither a place nor the queue can hold', async () => {
    const hosts = engineHosts({ maxQueue: 0 })
    const abort = new AbortController()
    const endless = Array.from({ length: DEFAULT_MAX_RUNNING }, () =>
      begin(hosts.generate(chat({ maxTokens: CONTEXT }), abort.signal)),
    )
    await Promise.all(endless)
    await expect(hosts.generate(chat()).next()).rejects.toMatchObject({
      kind: 'unavailable',
      code: 'queue_full',
    })
    abort.abort()
  })

  it('ends the streams of a child that dies, and starts another for the next request', async () => {
    const hosts = engineHosts()
    const { reading } = await begin(hosts.generate(chat({ maxTokens: CONTEXT })))
    const { pid } = hosts.loaded()[0]!
    process.kill(pid!, 'SIGKILL')
    await expect(reading).rejects.toMatchObject({ kind: 'unavailable', code: 'engine_crashed' })
    expect(await answer(hosts.generate(chat()))).toHaveLength(8)
    expect(hosts.loaded()[0]!.pid).not.toBe(pid)
  })

  it('places a model when it is loaded, and anew after a crash, of which it tells', async () => {
    const crashed: string[] = []
    const released: string[] = []
    let placed = 0
    const hosts = engineHosts({
      placeOf: async () => ({ ...ON_CPU, name: `place ${++placed}`, limits: { kvBytes: 2 ** 22 } }),
      onCrash: ({ name }) => crashed.push(name),
      onReleased: ({ name }) => released.push(name),
    })
    const answers = [hosts.generate(chat()), hosts.generate(chat())].map(answer)
    expect((await Promise.all(answers)).map((text) => text.length)).toEqual([8, 8])
    const [first] = hosts.loaded()
    expect(hosts.loaded()).toHaveLength(1)
    const { reading } = await begin(hosts.generate(chat({ maxTokens: undefined })))
    process.kill(first!.pid!, 'SIGKILL')
    await expect(reading).rejects.toMatchObject({ code: 'engine_crashed' })
    expect(crashed).toEqual([first!.device])
    await answer(hosts.generate(chat()))
    expect(hosts.loaded()[0]!.device).toBe(`place ${placed}`)
    expect(hosts.loaded()[0]!.device).not.toBe(first!.device)
    // every place but the one that is in use was given back, also one that a second request had found for nothing
    await hosts.close()
    expect(new Set(released).size).toBe(placed)
  })

  it('refuses a request whose model has no place, and asks again for the next', async () => {
    let isFull = true
    const full = new EngineError('too_large', 'device_out_of_memory', 'Only 1 GB is free.')
    const placeOf = async () => {
      if (isFull) throw full
      return ON_CPU
    }
    const hosts = engineHosts({ placeOf })
    await expect(answer(hosts.generate(chat()))).rejects.toBe(full)
    isFull = false
    expect(await answer(hosts.generate(chat()))).toHaveLength(8)
  })

  it('unloads a model that nobody asks', async () => {
    const hosts = engineHosts({ idleMinutes: 1e-6 })
    const events = hosts.generate(chat())
    await events.next()
    const { pid } = hosts.loaded()[0]!
    await answer(events)
    await vi.waitFor(() => expect(isAlive(pid!)).toBe(false), 10_000)
    expect(hosts.loaded()).toEqual([])
    expect(await answer(hosts.generate(chat()))).toHaveLength(8)
  })

  it('gives the place of an idle model to another one, but not that of a busy one', async () => {
    const hosts = engineHosts({ maxLoaded: 1 })
    await answer(hosts.generate(chat()))
    const abort = new AbortController()
    await begin(hosts.generate(chat({ baseFolder: otherBase, maxTokens: CONTEXT }), abort.signal))
    expect(hosts.loaded().map((engine) => engine.baseFolder)).toEqual([otherBase])
    await expect(hosts.generate(chat()).next()).rejects.toMatchObject({
      kind: 'unavailable',
      code: 'models_busy',
    })
    abort.abort()
  })

  it('holds two models side by side where two may be loaded', async () => {
    const hosts = engineHosts({ maxLoaded: 2 })
    const texts = await Promise.all([
      answer(hosts.generate(chat({ maxTokens: 24 }))),
      answer(hosts.generate(chat({ maxTokens: 24, baseFolder: otherBase }))),
    ])
    expect(texts[0]).not.toBe(texts[1])
    expect(hosts.loaded()).toHaveLength(2)
    await hosts.unload(otherBase)
    expect(hosts.loaded().map((engine) => engine.baseFolder)).toEqual([base])
  })

  it('ends its children and its streams on close, and refuses later requests', async () => {
    const hosts = engineHosts()
    const { reading } = await begin(hosts.generate(chat({ maxTokens: CONTEXT })))
    const { pid } = hosts.loaded()[0]!
    await hosts.close()
    await expect(reading).rejects.toMatchObject({ kind: 'unavailable', code: 'shutting_down' })
    expect(isAlive(pid!)).toBe(false)
    await expect(hosts.generate(chat()).next()).rejects.toMatchObject({ code: 'shutting_down' })
  })
})

describe('the child process', () => {
  it('ends when its parent is gone', async () => {
    const host = fileURLToPath(new URL('../../../src/engine-host/host.ts', import.meta.url))
    const child = fork(host, { execArgv: ['--import', 'tsx'], stdio: 'ignore' })
    child.disconnect()
    expect(await once(child, 'exit')).toEqual([0, null])
  })
})
