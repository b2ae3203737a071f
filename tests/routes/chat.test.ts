import { describe, expect, it } from 'vitest'
import { createApp } from '../../routes/app.ts'
import type { AppOptions } from '../../routes/app-options.ts'
import { FakeError, FakeServices, fakeOptions } from './fake-services.ts'
import { until } from './serve.ts'

const messages = [{ role: 'user' as const, content: 'Who are you?' }]
const request = { model: 'tiny', messages }
const tool = (name: string) => ({ type: 'function', function: { name, parameters: { type: 'object' } } })

function setup(options: Partial<AppOptions> = {}) {
  const services = new FakeServices()
  const app = createApp(services.asServices(), fakeOptions(options))
  const chat = (body: unknown) =>
    app.request('/v1/chat/completions', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
  return { services, chat }
}

const framesOf = (text: string) => text.split('\n\n').filter((frame) => frame !== '')
const dataOf = (text: string) =>
  framesOf(text)
    .filter((frame) => frame.startsWith('data: {'))
    .map((frame) => JSON.parse(frame.slice('data: '.length)))

const errorOf = async (response: Response) => ((await response.json()) as { error: unknown }).error

describe('POST /v1/chat/completions', () => {
  it('answers whole with content, finish reason and usage', async () => {
    const { chat } = setup()
    const body = (await (await chat(request)).json()) as { id: string; created: number }
    expect(body).toMatchObject({
      object: 'chat.completion',
      model: 'tiny',
      system_fingerprint: 'fp_test',
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: 'Hello, wörld 🌍', refusal: null },
          logprobs: null,
          finish_reason: 'stop',
        },
      ],
      usage: {
        prompt_tokens: 7,
        completion_tokens: 4,
        total_tokens: 11,
        prompt_tokens_details: { cached_tokens: 2 },
        completion_tokens_details: {
          reasoning_tokens: 1,
          accepted_prediction_tokens: 3,
          rejected_prediction_tokens: 5,
        },
      },
    })
    expect(body.id).toMatch(/^chatcmpl-[0-9a-f]{32}$/)
    expect(Math.abs(body.created - Date.now() / 1000)).toBeLessThan(60)
  })

  it.each([
    ['text', 'const a = 1'],
    [
      'parts',
      [
        { type: 'text', text: 'const a' },
        { type: 'text', text: ' = 1' },
      ],
    ],
  ])('passes a prediction given as %s on', async (_, content) => {
    const { chat, services } = setup()
    const response = await chat({ ...request, prediction: { type: 'content', content } })
    expect(response.status).toBe(200)
    expect(services.chat.requests.at(-1)!.prediction).toBe('const a = 1')
  })

  it('streams the role first, then text, then the finish reason and [DONE]', async () => {
    const response = await setup().chat({ ...request, stream: true })
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
    })
    const text = await response.text()
    expect(framesOf(text).at(-1)).toBe('data: [DONE]')
    const chunks = dataOf(text)
    expect(chunks.map((chunk) => chunk.choices[0].delta)).toEqual([
      { role: 'assistant', content: '' },
      ...['Hello', ', ', 'wörld ', '🌍'].map((content) => ({ content })),
      {},
    ])
    expect(chunks.map((chunk) => chunk.choices[0].finish_reason)).toEqual([
      null,
      null,
      null,
      null,
      null,
      'stop',
    ])
    expect(new Set(chunks.map(({ id, created, model }) => `${id} ${created} ${model}`)).size).toBe(1)
    expect(chunks.some((chunk) => 'usage' in chunk)).toBe(false)
  })

  it('sends the usage in a last chunk of its own where it is asked for', async () => {
    const streamed = { ...request, stream: true, stream_options: { include_usage: true } }
    const chunks = dataOf(await (await setup().chat(streamed)).text())
    expect(chunks.slice(0, -1).every((chunk) => chunk.usage === null)).toBe(true)
    expect(chunks.at(-1)).toMatchObject({
      choices: [],
      usage: { prompt_tokens: 7, completion_tokens: 4, total_tokens: 11 },
    })
  })

  it('hands the request on in one form, whatever names and nulls it came with', async () => {
    const { chat, services } = setup()
    await chat({
      ...request,
      messages: [
        { role: 'developer', content: 'Be brief.' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'a' },
            { type: 'text', text: 'b' },
          ],
          name: 'ann',
        },
        { role: 'assistant', content: 'c', refusal: null, tool_calls: [], annotations: [], audio: null },
        { role: 'tool', content: 'd', tool_call_id: 'call-1' },
      ],
      max_tokens: 5,
      temperature: 0,
      top_p: 0.5,
      top_k: 3,
      seed: -1,
      stop: 'x',
      n: 1,
    })
    await chat({ ...request, max_completion_tokens: 6, temperature: null, stop: ['a', 'b'], seed: null })
    await chat({ ...request, stop: null, n: null, stream: null })
    const { messages: _, ...bare } = services.chat.requests[2]!
    expect(services.chat.requests[0]).toEqual({
      model: 'tiny',
      messages: [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'ab', name: 'ann' },
        { role: 'assistant', content: 'c' },
        { role: 'tool', content: 'd', toolCallId: 'call-1' },
      ],
      maxTokens: 5,
      temperature: 0,
      topP: 0.5,
      topK: 3,
      seed: -1,
      stop: ['x'],
      n: 1,
    })
    expect(services.chat.requests[1]).toMatchObject({
      maxTokens: 6,
      temperature: undefined,
      stop: ['a', 'b'],
    })
    expect(bare).toEqual({ model: 'tiny', stop: [] })
  })

  it('accepts fields that ask for nothing', async () => {
    const { chat } = setup()
    const response = await chat({
      ...request,
      user: 'u',
      metadata: { a: 'b' },
      store: false,
      parallel_tool_calls: true,
      service_tier: 'auto',
      reasoning_effort: 'none',
      tools: [],
      tool_choice: 'none',
      logprobs: false,
      logit_bias: {},
      presence_penalty: 0,
      frequency_penalty: 0,
      response_format: { type: 'text' },
      modalities: ['text'],
    })
    expect(response.status).toBe(200)
  })

  it.each([
    ['functions', [{ name: 'f' }]],
    ['function_call', { name: 'f' }],
    ['modalities', ['text', 'audio']],
    ['web_search_options', {}],
  ])('refuses %s, which means something that it does not do', async (param, value) => {
    const response = await setup().chat({ ...request, [param]: value })
    expect(response.status).toBe(400)
    expect(await errorOf(response)).toMatchObject({ param, code: 'unsupported_parameter' })
  })

  it.each([
    ['n', { n: 129 }],
    ['n', { n: 0 }],
    ['top_logprobs', { top_logprobs: 3 }],
    ['top_logprobs', { logprobs: true, top_logprobs: 21 }],
    ['logit_bias.x', { logit_bias: { x: 1 } }],
    ['logit_bias.5', { logit_bias: { 5: 101 } }],
    ['presence_penalty', { presence_penalty: 2.1 }],
    ['frequency_penalty', { frequency_penalty: -2.1 }],
    ['tools', { tools: [tool('f'), tool('f')] }],
    ['tools.0.function.name', { tools: [tool('bad name')] }],
    ['tool_choice', { tools: [tool('f')], tool_choice: { type: 'function', function: { name: 'g' } } }],
    ['tool_choice', { tool_choice: 'required' }],
    ['tool_choice', { tool_choice: 'any' }],
    ['response_format.type', { response_format: { type: 'yaml' } }],
    ['response_format.json_schema', { response_format: { type: 'json_schema' } }],
    ['reasoning_effort', { reasoning_effort: 'huge' }],
    ['max_tokens', { max_tokens: 1e9 }],
    ['messages.0.tool_call_id', { messages: [{ role: 'tool', content: 'x' }] }],
    ['temperature', { temperature: 2.1 }],
    ['temperature', { temperature: '1' }],
    ['top_p', { top_p: 0 }],
    ['top_k', { top_k: -1 }],
    ['seed', { seed: 1.5 }],
    ['max_tokens', { max_tokens: 0 }],
    ['max_tokens', { max_tokens: 5, max_completion_tokens: 6 }],
    ['stop', { stop: ['a', 'b', 'c', 'd', 'e'] }],
    ['stop', { stop: '' }],
    ['stop.0', { stop: [''] }],
    ['stop', { stop: 7 }],
    ['stream_options', { stream_options: { include_usage: true } }],
    ['model', { model: undefined }],
    ['model', { model: '' }],
    ['messages', { messages: undefined }],
    ['messages', { messages: [] }],
    ['messages.0.role', { messages: [{ role: 'robot', content: 'x' }] }],
    ['messages.0.content', { messages: [{ role: 'user' }] }],
    ['messages.0.content', { messages: [{ role: 'user', content: null }] }],
    [
      'messages.0.content.1.type',
      {
        messages: [
          {
            role: 'user',
            content: [
              { type: 'text', text: 'a' },
              { type: 'image_url', image_url: { url: 'x' } },
            ],
          },
        ],
      },
    ],
    ['messages.0.tool_calls.0.type', { messages: [{ role: 'assistant', tool_calls: [{ id: 'a' }] }] }],
    ['min_p', { min_p: 1.1 }],
    ['best_of', { best_of: 2 }],
  ])('names %s as the field at fault in %j', async (param, change) => {
    const { chat, services } = setup()
    const response = await chat({ ...request, ...change })
    expect(response.status).toBe(400)
    expect(await errorOf(response)).toMatchObject({ param, type: 'invalid_request_error' })
    expect(services.chat.requests).toHaveLength(0)
  })

  it('answers with a status, streamed or not, when the request is refused before the start', async () => {
    const { chat, services } = setup()
    services.chat.failure = {
      error: new FakeError('too_large', 'context_length_exceeded', 'too long', 'messages'),
      afterPieces: 0,
    }
    for (const stream of [false, true]) {
      const response = await chat({ ...request, stream })
      expect(response.status).toBe(400)
      expect(await errorOf(response)).toMatchObject({
        code: 'context_length_exceeded',
        param: 'messages',
      })
    }
  })

  it('streams several choices, each with its role and its finish', async () => {
    const { chat, services } = setup()
    services.chat.parts = [
      { type: 'text', choice: 1, text: 'two' },
      { type: 'reasoning', choice: 1, text: 'why' },
    ]
    const chunks = dataOf(await (await chat({ ...request, n: 2, stream: true })).text())
    const ofChoice = (index: number) =>
      chunks.map(({ choices: [choice] }) => choice).filter((c) => c.index === index)
    expect(ofChoice(1).map(({ delta }) => delta)).toEqual([
      { role: 'assistant', content: '' },
      { content: 'two' },
      { reasoning_content: 'why' },
      {},
    ])
    expect(ofChoice(0).at(-1).finish_reason).toBe('stop')
    const { choices } = (await (await chat({ ...request, n: 2 })).json()) as { choices: unknown[] }
    expect(choices).toMatchObject([
      { index: 0, message: { content: 'Hello, wörld 🌍' } },
      { index: 1, message: { content: 'two', reasoning_content: 'why' } },
    ])
  })

  it("hands tool calls on: the first fragment with the call's name, later ones with its arguments", async () => {
    const { chat, services } = setup()
    services.chat.pieces = []
    services.chat.parts = [
      { type: 'tool_call', choice: 0, index: 0, id: 'call_1', name: 'f' },
      { type: 'tool_arguments', choice: 0, index: 0, text: '{"a":' },
      { type: 'tool_arguments', choice: 0, index: 0, text: '1}' },
      { type: 'finish', choice: 0, reason: 'tool_calls' },
    ]
    const asked = {
      ...request,
      tools: [tool('f')],
      tool_choice: { type: 'function', function: { name: 'f' } },
    }
    const chunks = dataOf(await (await chat({ ...asked, stream: true })).text())
    expect(chunks.flatMap(({ choices }) => choices[0].delta.tool_calls ?? [])).toEqual([
      { index: 0, id: 'call_1', type: 'function', function: { name: 'f', arguments: '' } },
      { index: 0, function: { arguments: '{"a":' } },
      { index: 0, function: { arguments: '1}' } },
    ])
    const whole = (await (await chat(asked)).json()) as { choices: { message: unknown }[] }
    expect(whole.choices[0]!.message).toEqual({
      role: 'assistant',
      content: null,
      refusal: null,
      tool_calls: [{ id: 'call_1', type: 'function', function: { name: 'f', arguments: '{"a":1}' } }],
    })
    expect(services.chat.requests[0]).toMatchObject({
      tools: [{ name: 'f', parameters: { type: 'object' } }],
      toolChoice: { name: 'f' },
    })
  })

  it('tells log-probabilities as OpenAI does', async () => {
    const { chat, services } = setup()
    const token = { token: 'é', bytes: [0xc3, 0xa9], logprob: -0.5 }
    services.chat.pieces = []
    services.chat.parts = [{ type: 'text', choice: 0, text: 'é', logprobs: [{ ...token, top: [token] }] }]
    const asked = { ...request, logprobs: true, top_logprobs: 1 }
    const expected = { content: [{ ...token, top_logprobs: [token] }], refusal: null }
    const { choices } = (await (await chat(asked)).json()) as { choices: { logprobs: unknown }[] }
    expect(choices[0]!.logprobs).toEqual(expected)
    const chunks = dataOf(await (await chat({ ...asked, stream: true })).text())
    expect(chunks[1].choices[0].logprobs).toEqual(expected)
    expect(services.chat.requests[0]).toMatchObject({ logprobs: 1 })
  })

  it('ends the stream with an error frame when something fails later, without its cause', async () => {
    const causes: unknown[] = []
    const { chat, services } = setup({ onStreamError: ({ cause }) => causes.push(cause) })
    const cause = new Error('secret path')
    services.chat.failure = { error: cause, afterPieces: 2 }
    const text = await (await chat({ ...request, stream: true })).text()
    expect(dataOf(text).at(-1)).toMatchObject({ error: { type: 'server_error', code: 'internal_error' } })
    expect(text).not.toContain('secret')
    expect(text).not.toContain('[DONE]')
    expect(causes).toEqual([cause])
  })

  it('keeps a silent stream alive with comments', async () => {
    const { chat, services } = setup({ keepAliveMs: 5 })
    services.chat.hangs = true
    const reader = (await chat({ ...request, stream: true })).body!.getReader()
    let text = ''
    while (!text.includes(': keep-alive\n\n')) {
      const { done, value } = await reader.read()
      expect(done).toBe(false)
      text += new TextDecoder().decode(value)
    }
    await reader.cancel()
    await until(() => services.chat.aborted === 1)
  })
})
