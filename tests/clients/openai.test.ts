import { readFileSync } from 'node:fs'
import OpenAI from 'openai'
import { zodFunction, zodResponseFormat } from 'openai/helpers/zod'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { MODEL, type RealServer, startRealServer } from './server.ts'

const messages = [{ role: 'user' as const, content: 'Who is Mia?' }]
const ask = { model: MODEL, messages, temperature: 0, max_tokens: 24 }
const ANSWER = 'Mia is a singer from Millbrook. She sings songs.'

/** By transformers; see tests/engine/generate/encoder-reference.py. */
const reference = JSON.parse(
  readFileSync(new URL('../engine/generate/encoder-reference.json', import.meta.url), 'utf8'),
) as { greedy: number[] }

const person = z.object({ name: z.enum(['Mia', 'Tom']), singer: z.boolean() })

describe("OpenAI's client over the embedded model", () => {
  let server: RealServer
  let client: OpenAI

  beforeAll(async () => {
    server = await startRealServer((settings) => {
      settings.limits.requestTokens = 4096
    })
    client = new OpenAI({ baseURL: server.baseURL, apiKey: 'unused', maxRetries: 0 })
  })
  afterAll(() => server.close())

  it("answers greedily with transformers' tokens", async () => {
    const logprobs = { ...ask, logprobs: true, top_logprobs: 2 }
    const completion = await client.chat.completions.create(logprobs)
    const [choice] = completion.choices
    expect(choice!.message.content).toBe(ANSWER)
    const tokens = choice!.logprobs!.content!
    const prompt = { model: MODEL, tokens: reference.greedy.slice(0, -1) }
    const { prompt: text } = await client.post<{ prompt: string }>('/detokenize', { body: prompt })
    expect(tokens.map(({ token }) => token).join('')).toBe(text)
    expect(tokens).toHaveLength(reference.greedy.length - 1)
    for (const { token, logprob, bytes, top_logprobs } of tokens) {
      expect(Buffer.from(bytes!).toString()).toBe(token)
      expect(top_logprobs[0]).toMatchObject({ token, logprob })
      expect(top_logprobs).toHaveLength(2)
    }
  })

  it('assembles a stream, role, finish reason and usage included', async () => {
    const runner = client.chat.completions.stream({ ...ask, stream_options: { include_usage: true } })
    const completion = await runner.finalChatCompletion()
    expect(completion.choices[0]).toMatchObject({
      finish_reason: 'stop',
      message: { role: 'assistant', content: ANSWER },
    })
    expect(completion.usage!.completion_tokens).toBe(reference.greedy.length)
  })

  it('answers the same with a prediction, and tells how much of it came true', async () => {
    const cases = [
      { content: ANSWER, accepted: 6, rejected: 0 },
      { content: 'Mia is a singer from Oakfield. She sings songs.', accepted: 4, rejected: 1 },
      { content: 'Nothing of this is true.', accepted: 0, rejected: 0 },
    ]
    for (const { content, accepted, rejected } of cases) {
      const prediction = { type: 'content' as const, content }
      const { choices, usage } = await client.chat.completions.create({ ...ask, prediction })
      expect(choices[0]!.message.content).toBe(ANSWER)
      expect(usage!.completion_tokens).toBe(reference.greedy.length)
      const details = usage!.completion_tokens_details!
      expect(details.accepted_prediction_tokens).toBeGreaterThanOrEqual(accepted)
      expect(details.rejected_prediction_tokens).toBeGreaterThanOrEqual(rejected)
    }
    const plain = await client.chat.completions.create(ask)
    expect(plain.usage!.completion_tokens_details).toMatchObject({
      accepted_prediction_tokens: 0,
      rejected_prediction_tokens: 0,
    })
  })

  it('draws the same text from the same seed, alone or among others, and other texts for other choices', async () => {
    const drawn = {
      ...ask,
      messages: [{ role: 'user' as const, content: 'Name three animals.' }],
      temperature: 1.5,
    }
    const alone = await client.chat.completions.create({ ...drawn, seed: 7 })
    const [again, others] = await Promise.all([
      client.chat.completions.create({ ...drawn, seed: 7 }),
      client.chat.completions.create({ ...drawn, seed: 7, n: 4 }),
      client.chat.completions.create({ ...drawn, seed: 8 }),
    ])
    const text = alone.choices[0]!.message.content
    expect(again.choices[0]!.message.content).toBe(text)
    expect(others.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3])
    expect(others.choices[0]!.message.content).toBe(text)
    expect(new Set(others.choices.map(({ message }) => message.content)).size).toBeGreaterThan(1)
  })

  it('streams several choices side by side', async () => {
    const stream = await client.chat.completions.create({ ...ask, n: 3, stream: true })
    const texts = ['', '', '']
    const finished = new Set<number>()
    for await (const { choices } of stream) {
      for (const { index, delta, finish_reason } of choices) {
        texts[index] += delta.content ?? ''
        if (finish_reason) finished.add(index)
      }
    }
    expect(texts).toEqual([ANSWER, ANSWER, ANSWER])
    expect(finished.size).toBe(3)
  })

  it('answers with more choices than there are places', async () => {
    const { choices } = await client.chat.completions.create({ ...ask, n: 20, max_tokens: 2 })
    expect(choices.map(({ message }) => message.content)).toEqual(Array(20).fill('Mia is'))
  })

  it('keeps to biases, penalties, stop strings and lengths', async () => {
    const content = async (more: object) => {
      const completion = await client.chat.completions.create({ ...ask, ...more })
      const [choice] = completion.choices
      return { text: choice!.message.content, reason: choice!.finish_reason, usage: completion.usage! }
    }
    const { tokens } = await client.post<{ tokens: number[] }>('/tokenize', {
      body: { model: MODEL, prompt: 'Mia' },
    })
    expect((await content({ logit_bias: { [tokens[0]!]: -100 } })).text).not.toMatch(/^Mia/)
    expect((await content({ stop: ['Millbrook. S', 'never'] })).text).toBe('Mia is a singer from ')
    expect(await content({ max_tokens: 2 })).toMatchObject({ text: 'Mia is', reason: 'length' })
    const forced = await content({ ignore_eos: true, max_tokens: 30 })
    expect(forced.usage.completion_tokens).toBe(30)
    const longer = await content({ min_tokens: 20, max_tokens: 22 })
    expect(longer.usage.completion_tokens).toBeGreaterThanOrEqual(20)
    const penalised = await content({
      frequency_penalty: 2,
      presence_penalty: 2,
      ignore_eos: true,
      max_tokens: 40,
    })
    const plain = await content({ ignore_eos: true, max_tokens: 40 })
    expect(penalised.text).not.toBe(plain.text)
  })

  it('parses structured output', async () => {
    const completion = await client.chat.completions.parse({
      ...ask,
      max_tokens: 60,
      response_format: zodResponseFormat(person, 'person'),
    })
    expect(person.safeParse(completion.choices[0]!.message.parsed).success).toBe(true)
  })

  it('makes json_object an object', async () => {
    // Whatever the model would rather say; the end of a string may lie beyond the limit, so its quote is made likely.
    const { tokens } = await client.post<{ tokens: number[] }>('/tokenize', {
      body: { model: MODEL, prompt: '}' },
    })
    const completion = await client.chat.completions.create({
      ...ask,
      logit_bias: { [tokens[0]!]: 100 },
      response_format: { type: 'json_object' },
    })
    expect(completion.choices[0]!.finish_reason).toBe('stop')
    expect(JSON.parse(completion.choices[0]!.message.content!)).toEqual({})
  })

  it('calls a named tool, whole and streamed alike', async () => {
    const asked = {
      ...ask,
      max_tokens: 100,
      tools: [zodFunction({ name: 'look_up', parameters: person })],
      tool_choice: { type: 'function' as const, function: { name: 'look_up' } },
    }
    const whole = await client.chat.completions.create(asked)
    const streamed = await client.chat.completions.stream(asked).finalChatCompletion()
    for (const { choices } of [whole, streamed]) {
      expect(choices[0]!.finish_reason).toBe('tool_calls')
      const [call] = choices[0]!.message.tool_calls!
      if (call?.type !== 'function') throw new Error('no function call')
      expect(call.function.name).toBe('look_up')
      expect(person.safeParse(JSON.parse(call.function.arguments)).success).toBe(true)
    }
  })

  it('runs tools and answers with their results', async () => {
    const seen: unknown[] = []
    const runner = client.chat.completions.runTools(
      {
        ...ask,
        max_tokens: 100,
        tool_choice: { type: 'function', function: { name: 'look_up' } },
        tools: [
          {
            type: 'function',
            function: {
              name: 'look_up',
              description: 'Looks a person up.',
              parameters: z.toJSONSchema(person) as Record<string, unknown>,
              parse: JSON.parse,
              function: (value: unknown) => {
                seen.push(value)
                return 'Mia is a singer.'
              },
            },
          },
        ],
      },
      { maxChatCompletions: 1 },
    )
    await runner.done()
    expect(seen).toHaveLength(1)
    expect(person.safeParse(seen[0]).success).toBe(true)
    // The conversation with the call and its result goes back as the helper wrote it.
    const next = await client.chat.completions.create({
      ...ask,
      messages: [...messages, ...runner.messages.slice(-2)],
    })
    expect(next.choices[0]!.message.content).toBeTruthy()
  })

  it('goes on with texts and tokens, echoes, and tells log-probabilities', async () => {
    const completion = await client.completions.create({
      model: MODEL,
      prompt: ['Mia is', 'Tom is'],
      max_tokens: 3,
      temperature: 0,
      echo: true,
      logprobs: 2,
    })
    expect(completion.choices.map(({ index }) => index)).toEqual([0, 1])
    for (const [at, { text, logprobs }] of completion.choices.entries()) {
      expect(text.startsWith(['Mia is', 'Tom is'][at]!)).toBe(true)
      expect(logprobs!.tokens!.join('')).toBe(text)
      expect(logprobs!.token_logprobs![0]).toBeNull()
      expect(logprobs!.text_offset).toEqual(
        logprobs!.tokens!.map((_, index) => logprobs!.tokens!.slice(0, index).join('').length),
      )
    }
    const { tokens } = await client.post<{ tokens: number[] }>('/tokenize', {
      body: { model: MODEL, prompt: 'Mia is' },
    })
    const fromTokens = await client.completions.create({
      model: MODEL,
      prompt: tokens,
      max_tokens: 3,
      temperature: 0,
    })
    expect(`Mia is${fromTokens.choices[0]!.text}`).toBe(completion.choices[0]!.text)
    const stream = await client.completions.create({
      model: MODEL,
      prompt: 'Mia is',
      max_tokens: 3,
      temperature: 0,
      stream: true,
    })
    let streamed = ''
    for await (const { choices } of stream) streamed += choices[0]?.text ?? ''
    expect(streamed).toBe(fromTokens.choices[0]!.text)
  })

  it('places tokens that are parts of characters where their characters begin', async () => {
    const prompt = 'Größe 漢字 🙂 x'
    const { choices } = await client.completions.create({
      model: MODEL,
      prompt,
      max_tokens: 2,
      temperature: 0,
      echo: true,
      logprobs: 0,
    })
    const { text, logprobs } = choices[0]!
    const characters = [...text]
    const { tokens = [], text_offset: offsets = [] } = logprobs!
    const whole = tokens
      .map((token, at) => ({ token, at: offsets[at]! }))
      .filter(({ token }) => !token.includes('\ufffd'))
    expect(whole.length).toBeGreaterThan(6)
    for (const { token, at } of whole) {
      expect(characters.slice(at, at + [...token].length).join('')).toBe(token)
    }
    const ofEmoji = tokens.map((_, at) => offsets[at]!).filter((at) => at === characters.indexOf('🙂'))
    expect(ofEmoji).toHaveLength(4)
  })

  it('embeds: similar texts lie closer, and both encodings say the same', async () => {
    const input = ['Mia is a singer.', 'Mia is a singer from Millbrook.', 'Seven plus two is nine.']
    const { data, usage } = await client.embeddings.create({ model: MODEL, input })
    const floats = await client.embeddings.create({ model: MODEL, input, encoding_format: 'float' })
    const dot = (a: number[], b: number[]) => a.reduce((sum, value, index) => sum + value * b[index]!, 0)
    const [first, second, third] = data.map(({ embedding }) => Array.from(embedding))
    expect(dot(first!, second!)).toBeGreaterThan(dot(first!, third!))
    expect(first).toEqual(floats.data[0]!.embedding)
    expect(usage.prompt_tokens).toBeGreaterThan(10)
  })

  it('refuses in the classes that the client knows', async () => {
    await expect(client.chat.completions.create({ ...ask, model: 'nobody' })).rejects.toMatchObject({
      status: 404,
      code: 'model_not_found',
    })
    await expect(client.chat.completions.create({ ...ask, n: 20, max_tokens: 1000 })).rejects.toMatchObject({
      status: 400,
      code: 'too_many_tokens',
      param: 'n',
      message: expect.stringContaining('20 × 512 = 10240'),
    })
    await expect(
      client.completions.create({ model: MODEL, prompt: [[999_999]], max_tokens: 1 }),
    ).rejects.toMatchObject({ status: 400, code: 'unknown_token', param: 'prompt' })
    await expect(
      client.chat.completions.create({ ...ask, messages: [{ role: 'user', content: 'word '.repeat(2000) }] }),
    ).rejects.toMatchObject({ status: 400, code: 'context_length_exceeded', param: 'messages' })
  })
})
