import { setImmediate } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { EngineError } from '../../../engine/errors.ts'
import { DEFAULT_SAMPLING } from '../../../engine/generate/sampling-params.ts'
import { type BatchDecoder, Scheduler } from '../../../engine/generate/scheduler.ts'
import type { GenerationEvent } from '../../../engine/generate/sequence.ts'
import { collect, fakeDecoder, fakeRequest, textOf } from './fake-decoder.ts'

const ANSWERS = { a: 'aaaaaaaa', b: 'bbbb', c: 'cc' }

describe('Scheduler', () => {
  it('gives every request its own answer', async () => {
    const scheduler = new Scheduler(fakeDecoder(ANSWERS))
    const all = await Promise.all(['a>', 'b>', 'c>'].map((p) => collect(scheduler.submit(fakeRequest(p)))))
    expect(all.map(textOf)).toEqual(['aaaaaaaa', 'bbbb', 'cc'])
    expect([scheduler.running, scheduler.waiting]).toEqual([0, 0])
  })

  it('answers those who are past their prompts together, one token each in every run', async () => {
    const decoder = fakeDecoder(ANSWERS)
    const scheduler = new Scheduler(decoder)
    await Promise.all(['a>', 'b>', 'c>'].map((p) => collect(scheduler.submit(fakeRequest(p)))))
    expect(decoder.runs).toEqual(['a', 'a', 'b', 'ab', 'c', 'abc', 'abc', 'ab', 'a', 'a', 'a'])
  })

  it('computes several tokens in a run where a guess comes true, and answers the same', async () => {
    const answer = 'to be or not to be, that is the question: not to be, that is'
    const decoder = fakeDecoder({ a: answer })
    const scheduler = new Scheduler(decoder, { promptLookup: true })
    const events = await collect(scheduler.submit(fakeRequest('a>')))
    expect(textOf(events)).toBe(answer)
    const { completionTokens, guessed } = events.at(-1) as Extract<GenerationEvent, { type: 'finish' }>
    expect(completionTokens).toBe(answer.length + 1)
    expect(guessed!.accepted).toBeGreaterThan(10)
    expect(decoder.calls.reduce((sum, { tokens }) => sum + tokens, 0)).toBeGreaterThan(answer.length)
    expect(new Set(decoder.runs).size).toBeGreaterThan(1)
  })

  it('follows a prediction as far as it is right, wherever the answer ends', async () => {
    const answer = 'const total = left + right'
    for (const maxTokens of [1, 2, 3, 4, 11, 200]) {
      const decoder = fakeDecoder({ a: answer })
      const prediction = Int32Array.from(Buffer.from('const sum = left + right + 1'))
      const request = fakeRequest('a>', { prediction, maxTokens })
      const events = await collect(new Scheduler(decoder).submit(request))
      expect(textOf(events)).toBe(answer.slice(0, maxTokens))
      const runs = decoder.runs.length
      if (maxTokens > 100) expect(runs).toBeLessThan(answer.length * 0.7)
    }
  })

  it('guesses with draws as well: the same seed draws the same text', async () => {
    const answer = 'again and again and again and again'
    const request = () => fakeRequest('a>', { sampling: DEFAULT_SAMPLING, seed: 7 })
    const texts = [true, false].map(async (promptLookup) => {
      const scheduler = new Scheduler(fakeDecoder({ a: answer }), { promptLookup })
      return textOf(await collect(scheduler.submit(request())))
    })
    expect(await Promise.all(texts)).toEqual([answer, answer])
  })

  it('guesses nothing for requests that share the batch', async () => {
    const decoder = fakeDecoder({ a: 'x'.repeat(40), b: 'y'.repeat(40) })
    const scheduler = new Scheduler(decoder, { promptLookup: true })
    await Promise.all(['a>', 'b>'].map((prompt) => collect(scheduler.submit(fakeRequest(prompt)))))
    const together = decoder.runs.filter((names) => names.includes('a') && names.includes('b'))
    expect(together.every((names) => names === 'ab')).toBe(true)
  })

  it('lets a request join while others are being answered', async () => {
    const decoder = fakeDecoder(ANSWERS)
    const scheduler = new Scheduler(decoder)
    let late: Promise<unknown> | undefined
    for await (const event of scheduler.submit(fakeRequest('a>'))) {
      if (event.type === 'text') late ??= collect(scheduler.submit(fakeRequest('c>')))
    }
    await late
    expect(decoder.runs).toContain('ac')
  })

  it('lets a short request pass between the chunks of a long prompt', async () => {
    const decoder = fakeDecoder(ANSWERS, 10_000)
    const scheduler = new Scheduler(decoder)
    const ended: string[] = []
    const long = collect(scheduler.submit(fakeRequest(`a${'.'.repeat(4000)}>`))).then(() =>
      ended.push('long'),
    )
    const short = collect(scheduler.submit(fakeRequest('c>'))).then(() => ended.push('short'))
    await Promise.all([long, short])
    expect(ended).toEqual(['short', 'long'])
  })

  it('answers all when the cache holds only some of them: who joined last gives way and goes on later', async () => {
    const answer = 'x'.repeat(300)
    const decoder = fakeDecoder({ a: answer, b: answer.replaceAll('x', 'y'), c: 'z' })
    const bytes = 512 * 2 * 4 // 512 tokens of 2 floats
    const scheduler = new Scheduler(decoder, { kvBytes: bytes, prefixBytes: 0 })
    const all = await Promise.all(['a>', 'b>', 'c>'].map((p) => collect(scheduler.submit(fakeRequest(p)))))
    expect(all.map(textOf)).toEqual([answer, answer.replaceAll('x', 'y'), 'z'])
    expect(scheduler.cacheBytes).toBeLessThanOrEqual(bytes)
  })

  it('computes a beginning that it has seen only once, and says how many tokens that spared', async () => {
    const decoder = fakeDecoder(ANSWERS)
    const scheduler = new Scheduler(decoder)
    const prompt = `a${'.'.repeat(98)}`
    await collect(scheduler.submit(fakeRequest(`${prompt}>`)))
    const before = decoder.calls.length
    const events = await collect(scheduler.submit(fakeRequest(`${prompt}!>`)))
    expect(textOf(events)).toBe('aaaaaaaa')
    expect(events.at(-1)).toMatchObject({ promptTokens: 101, cachedTokens: 96 })
    expect(decoder.calls[before]!.tokens).toBe(5)
  })

  it('computes the prompt of several choices once, and a shared beginning of half of it', async () => {
    const decoder = fakeDecoder({ a: 'one' })
    const scheduler = new Scheduler(decoder)
    const prompt = `a${'x'.repeat(198)}>`
    const half = `a${'x'.repeat(120)}${'y'.repeat(78)}>`
    const answers = [prompt, prompt, prompt, half].map((text) => collect(scheduler.submit(fakeRequest(text))))
    const events = await Promise.all(answers)
    expect(events.map(textOf)).toEqual(['one', 'one', 'one', 'one'])
    const cached = events.map((each) => {
      const finish = each.at(-1)!
      return finish.type === 'finish' ? finish.cachedTokens : undefined
    })
    // Whole blocks of 32, and never the last token.
    expect(cached).toEqual([0, 192, 192, 96])
    const prefilled = decoder.calls
      .filter(({ tokens }) => tokens > 1)
      .reduce((sum, { tokens }) => sum + tokens, 0)
    expect(prefilled).toBe(200 + 8 + 8 + 104)
  })

  it('never overlaps two forward calls', async () => {
    const inner = fakeDecoder(ANSWERS)
    let active = 0
    const decoder: BatchDecoder = {
      ...inner,
      async run(step) {
        expect(active++).toBe(0)
        await setImmediate()
        active--
        return inner.run(step)
      },
    }
    const scheduler = new Scheduler(decoder)
    await Promise.all(['a>', 'b>', 'c>'].map((p) => collect(scheduler.submit(fakeRequest(p)))))
  })

  it('queues beyond the places, first come first served, and refuses beyond the queue', async () => {
    const decoder = fakeDecoder(ANSWERS)
    const scheduler = new Scheduler(decoder, { maxRunning: 1, maxQueue: 1 })
    const first = collect(scheduler.submit(fakeRequest('a>')))
    const second = collect(scheduler.submit(fakeRequest('b>')))
    expect(scheduler.running + scheduler.waiting).toBe(2)
    expect(() => scheduler.submit(fakeRequest('c>'))).toThrow(
      expect.objectContaining({ kind: 'unavailable', code: 'queue_full' }),
    )
    expect([textOf(await first), textOf(await second)]).toEqual(['aaaaaaaa', 'bbbb'])
    expect(decoder.calls.map((call) => call.name).join('')).toMatch(/^a+b+$/)
    expect(textOf(await collect(scheduler.submit(fakeRequest('c>'))))).toBe('cc')
  })

  it('cancels a running request within one step and goes on with the others', async () => {
    const decoder = fakeDecoder(ANSWERS)
    const scheduler = new Scheduler(decoder)
    const abort = new AbortController()
    const cancelled = (async () => {
      let texts = 0
      for await (const event of scheduler.submit(fakeRequest('a>'), abort.signal)) {
        if (event.type === 'text' && ++texts === 2) abort.abort()
      }
    })()
    const other = collect(scheduler.submit(fakeRequest('b>')))
    await expect(cancelled).rejects.toMatchObject({ kind: 'cancelled' })
    expect(textOf(await other)).toBe('bbbb')
    expect(decoder.calls.filter((call) => call.name === 'a').length).toBeLessThanOrEqual(3)
  })

  it('cancels a request that waits, before it costs a step', async () => {
    const decoder = fakeDecoder(ANSWERS)
    const scheduler = new Scheduler(decoder, { maxRunning: 1 })
    const abort = new AbortController()
    const first = collect(scheduler.submit(fakeRequest('a>')))
    const waiting = collect(scheduler.submit(fakeRequest('b>'), abort.signal))
    abort.abort()
    await expect(waiting).rejects.toMatchObject({ kind: 'cancelled' })
    await first
    expect(decoder.calls.some((call) => call.name === 'b')).toBe(false)
  })

  it('stops a request whose reader leaves', async () => {
    const decoder = fakeDecoder(ANSWERS)
    const scheduler = new Scheduler(decoder)
    for await (const event of scheduler.submit(fakeRequest('a>'))) if (event.type === 'text') break
    expect(scheduler.running).toBe(0)
    await setImmediate()
    expect(decoder.calls.length).toBeLessThan(4)
  })

  it('ends one request with its error and serves the others', async () => {
    const inner = fakeDecoder(ANSWERS)
    const decoder: BatchDecoder = {
      ...inner,
      run: async (step) => {
        if (step.tokens[0] === 98n && step.seq > 1) throw new Error('broken step')
        return inner.run(step)
      },
    }
    const scheduler = new Scheduler(decoder)
    const good = collect(scheduler.submit(fakeRequest('a>')))
    await expect(collect(scheduler.submit(fakeRequest('b>')))).rejects.toThrow('broken step')
    expect(textOf(await good)).toBe('aaaaaaaa')
  })

  it('refuses a signal that is aborted already, and ends everything on dropAll', async () => {
    const scheduler = new Scheduler(fakeDecoder(ANSWERS), { maxRunning: 1 })
    expect(() => scheduler.submit(fakeRequest('a>'), AbortSignal.abort())).toThrow(
      expect.objectContaining({ kind: 'cancelled' }),
    )
    const both = ['a>', 'b>'].map((p) => collect(scheduler.submit(fakeRequest(p))))
    scheduler.dropAll(new EngineError('unavailable', 'unloading', 'The model is being unloaded.'))
    for (const result of await Promise.allSettled(both)) {
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'unloading' } })
    }
    expect([scheduler.running, scheduler.waiting]).toEqual([0, 0])
  })
})
