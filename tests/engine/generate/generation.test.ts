import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { collect, EOS, fakeDecoder, fakeRequest, generate, textOf } from './fake-decoder.ts'

describe('generate', () => {
  it('answers until the end-of-sequence token, which counts but is not shown', async () => {
    const events = await collect(generate(fakeDecoder({ a: 'hi' }), fakeRequest('a>')))
    expect(events).toEqual([
      { type: 'start', promptTokens: 2 },
      { type: 'text', text: 'h', tokenIds: [104] },
      { type: 'text', text: 'i', tokenIds: [105] },
      {
        type: 'finish',
        reason: 'stop',
        promptTokens: 2,
        completionTokens: 3,
        cachedTokens: 0,
        queuedMs: expect.any(Number),
      },
    ])
  })

  it('ends with reason length at max_tokens', async () => {
    const events = await collect(generate(fakeDecoder({ a: 'hello' }), fakeRequest('a>', { maxTokens: 2 })))
    expect(textOf(events)).toBe('he')
    expect(events.at(-1)).toMatchObject({ reason: 'length', completionTokens: 2 })
  })

  it('clips max_tokens to what the context leaves', async () => {
    const decoder = fakeDecoder({ a: 'hello' }, 5)
    const events = await collect(generate(decoder, fakeRequest('a>', { maxTokens: 100 })))
    expect(textOf(events)).toBe('hel')
    expect(events.at(-1)).toMatchObject({
      reason: 'length',
      completionTokens: 3,
      cachedTokens: 0,
      queuedMs: expect.any(Number),
    })
  })

  it('goes on after the end-of-sequence token when told to ignore it', async () => {
    const events = await collect(
      generate(fakeDecoder({ a: 'x' }), fakeRequest('a>', { maxTokens: 4, ignoreEos: true })),
    )
    expect(events.at(-1)).toMatchObject({ reason: 'length', completionTokens: 4 })
    expect(events.flatMap((event) => (event.type === 'text' ? event.tokenIds : []))).toEqual([
      120,
      EOS,
      EOS,
      EOS,
    ])
  })

  it('refuses a prompt longer than the context with both numbers, before any work', async () => {
    const decoder = fakeDecoder({}, 8)
    await expect(collect(generate(decoder, fakeRequest('a1234567>')))).rejects.toMatchObject({
      kind: 'too_large',
      code: 'context_length_exceeded',
      message: expect.stringMatching(/\b9\b.*\b8\b/),
    })
    expect(decoder.calls).toEqual([])
  })

  it.each([
    ['an empty prompt', '', {}, 'empty_prompt'],
    ['max_tokens 0', 'a>', { maxTokens: 0 }, 'invalid_value'],
    ['an empty stop string', 'a>', { stop: [''] }, 'invalid_value'],
  ])('refuses %s', async (_, prompt, more, code) => {
    await expect(collect(generate(fakeDecoder({}), fakeRequest(prompt, more)))).rejects.toMatchObject({
      code,
    })
  })

  it('feeds a long prompt in chunks and then one token at a time', async () => {
    const decoder = fakeDecoder({ a: 'ok' })
    await collect(generate(decoder, fakeRequest(`a${'.'.repeat(700)}>`)))
    const fed = decoder.calls.map((call) => call.tokens)
    expect(fed.slice(-2)).toEqual([1, 1])
    expect(fed.length).toBeGreaterThan(3)
    expect(fed.reduce((sum, tokens) => sum + tokens)).toBe(702 + 2)
  })

  it('never splits a character that spans tokens', async () => {
    const events = await collect(generate(fakeDecoder({ a: 'é😀!' }), fakeRequest('a>')))
    expect(events.flatMap((event) => (event.type === 'text' ? event.text : []))).toEqual(['é', '😀', '!'])
  })

  it('ends at a stop string that spans tokens, without it, and counts the tokens drawn', async () => {
    const events = await collect(
      generate(fakeDecoder({ a: 'one\n\ntwo' }), fakeRequest('a>', { stop: ['\n\n'] })),
    )
    expect(textOf(events)).toBe('one')
    expect(events.at(-1)).toEqual({
      type: 'finish',
      reason: 'stop',
      promptTokens: 2,
      completionTokens: 5,
      cachedTokens: 0,
      queuedMs: expect.any(Number),
    })
  })

  it('streams exactly the text that the stop strings leave, for any answer and any stops', async () => {
    const unit = fc.constantFrom('a', 'b', 'é', '😀')
    const stops = fc.array(fc.string({ unit, minLength: 1, maxLength: 3 }), { maxLength: 3 })
    await fc.assert(
      fc.asyncProperty(fc.string({ unit, maxLength: 12 }), stops, async (answer, stop) => {
        const text = textOf(await collect(generate(fakeDecoder({ a: answer }), fakeRequest('a>', { stop }))))
        for (const forbidden of stop) expect(text).not.toContain(forbidden)
        expect(answer.startsWith(text)).toBe(true)
        if (!stop.some((string) => answer.includes(string))) expect(text).toBe(answer)
      }),
      { seed: 9, numRuns: 60 },
    )
  })

  it('stops between two steps when the signal is aborted', async () => {
    const decoder = fakeDecoder({ a: 'a long answer' })
    const abort = new AbortController()
    const reading = (async () => {
      for await (const event of generate(decoder, fakeRequest('a>'), abort.signal)) {
        if (event.type === 'text' && event.text === 'o') abort.abort()
      }
    })()
    await expect(reading).rejects.toMatchObject({ kind: 'cancelled' })
    expect(decoder.calls).toHaveLength(4)
  })
})
