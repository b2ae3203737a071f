import { describe, expect, it } from 'vitest'
import { createApp } from '../../routes/app.ts'
import { FakeServices, fakeOptions } from './fake-services.ts'

function setup() {
  const services = new FakeServices()
  const app = createApp(services.asServices(), fakeOptions())
  const post = async (path: string, body: unknown) => {
    const response = await app.request(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    // biome-ignore lint/suspicious/noExplicitAny: bodies are read as a client reads them
    return { status: response.status, body: (await response.json()) as any }
  }
  return { services, post }
}

describe('POST /v1/completions', () => {
  it.each([
    ['a text', 'once', ['once']],
    ['several texts', ['once', 'upon'], ['once', 'upon']],
    ['token ids', [1, 2], [[1, 2]]],
    ['several lists of token ids', [[1], [2, 3]], [[1], [2, 3]]],
  ])('takes %s as prompt', async (_, prompt, prompts) => {
    const { post, services } = setup()
    const { status, body } = await post('/v1/completions', { model: 'tiny', prompt, n: 2 })
    expect(status).toBe(200)
    expect(services.completions.requests[0]).toMatchObject({ prompts, maxTokens: 16, n: 2, echo: false })
    expect(body.choices.map(({ index }: { index: number }) => index)).toEqual(
      Array.from({ length: 2 * prompts.length }, (_, index) => index),
    )
    expect(body.choices[0]).toEqual({ index: 0, text: 'abab', logprobs: null, finish_reason: 'length' })
  })

  it('tells log-probabilities with the place of each token in the text', async () => {
    const { post } = setup()
    const { body } = await post('/v1/completions', { model: 'tiny', prompt: 'x', logprobs: 1 })
    expect(body.choices[0].logprobs).toEqual({
      tokens: ['ab', 'ab'],
      token_logprobs: [-0.5, -0.5],
      top_logprobs: [{ ab: -0.5 }, { ab: -0.5 }],
      text_offset: [0, 2],
    })
  })

  it.each([
    ['suffix', { suffix: 'end' }],
    ['best_of', { best_of: 2 }],
    ['logprobs', { logprobs: 6 }],
    ['max_tokens', { max_tokens: 0 }],
    ['prompt', { prompt: undefined }],
    ['prompt', { prompt: [] }],
    ['prompt', { prompt: [['a']] }],
  ])('refuses a wrong %s: %j', async (param, change) => {
    const { post, services } = setup()
    const { status, body } = await post('/v1/completions', { model: 'tiny', prompt: 'x', ...change })
    expect(status).toBe(400)
    expect(body.error.param.split('.')[0]).toBe(param)
    expect(services.completions.requests).toEqual([])
  })
})

describe('POST /v1/tokenize and /v1/detokenize', () => {
  it('are inverse', async () => {
    const { post } = setup()
    const tokenized = await post('/v1/tokenize', { model: 'tiny', prompt: 'añ', return_token_strs: true })
    expect(tokenized.body).toEqual({
      count: 2,
      max_model_len: 512,
      tokens: [97, 241],
      token_strs: ['a', 'ñ'],
    })
    const { tokens } = tokenized.body
    expect((await post('/v1/detokenize', { model: 'tiny', tokens })).body).toEqual({ prompt: 'añ' })
  })
})

describe('POST /v1/chat/completions/render', () => {
  it('shows the prompt as text and tokens', async () => {
    const { post } = setup()
    const { body } = await post('/v1/chat/completions/render', {
      model: 'tiny',
      messages: [{ role: 'user', content: 'hi' }],
    })
    expect(body).toEqual({ object: 'chat.render', model: 'tiny', text: 'hi', tokens: [1, 2, 3] })
  })
})

describe('POST /v1/embeddings', () => {
  it('answers with numbers or with base64', async () => {
    const { post } = setup()
    const asked = { model: 'tiny', input: ['a', 'b'] }
    const { body } = await post('/v1/embeddings', asked)
    expect(body.data[1]).toMatchObject({ object: 'embedding', index: 1 })
    expect(body.data[1].embedding).toEqual([Math.fround(0.6), Math.fround(0.8)])
    expect(body.usage).toEqual({ prompt_tokens: 6, total_tokens: 6 })
    const encoded = await post('/v1/embeddings', { ...asked, encoding_format: 'base64' })
    expect(Buffer.from(encoded.body.data[0].embedding, 'base64').readFloatLE(4)).toBe(Math.fround(0.8))
  })

  it("refuses another number of dimensions than the model's", async () => {
    const { post } = setup()
    expect((await post('/v1/embeddings', { model: 'tiny', input: 'a', dimensions: 2 })).status).toBe(200)
    const { status, body } = await post('/v1/embeddings', { model: 'tiny', input: 'a', dimensions: 3 })
    expect({ status, param: body.error.param }).toEqual({ status: 400, param: 'dimensions' })
  })
})
