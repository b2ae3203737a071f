import OpenAI, { APIError, BadRequestError, ConflictError, InternalServerError, NotFoundError } from 'openai'
import { describe, expect, it } from 'vitest'
import { FakeError, FakeServices } from './fake-services.ts'
import { serveApp, until } from './serve.ts'

const messages = [{ role: 'user' as const, content: 'Who are you?' }]

async function setupClient(services = new FakeServices()) {
  const baseURL = `${await serveApp(services)}/v1`
  return { services, baseURL, client: new OpenAI({ baseURL, apiKey: 'k', maxRetries: 0 }) }
}

describe("OpenAI's client", () => {
  it('gets whole answers, with the request id', async () => {
    const { client } = await setupClient()
    const completion = await client.chat.completions.create({ model: 'tiny', messages })
    expect(completion.choices[0]?.message.content).toBe('Hello, wörld 🌍')
    expect(completion.usage?.total_tokens).toBe(11)
    expect(completion._request_id).toBeTruthy()
  })

  it('iterates over a stream', async () => {
    const { client } = await setupClient()
    const stream_options = { include_usage: true }
    const stream = await client.chat.completions.create({
      model: 'tiny',
      messages,
      stream: true,
      stream_options,
    })
    let text = ''
    let total: number | undefined
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? ''
      total = chunk.usage?.total_tokens ?? total
    }
    expect([text, total]).toEqual(['Hello, wörld 🌍', 11])
  })

  it('assembles an answer with its stream helper', async () => {
    const { client } = await setupClient()
    const answer = await client.chat.completions.stream({ model: 'tiny', messages }).finalChatCompletion()
    expect(answer.choices[0]).toMatchObject({
      finish_reason: 'stop',
      message: { content: 'Hello, wörld 🌍' },
    })
  })

  it('reads characters whole even when the connection splits them', async () => {
    const { baseURL } = await setupClient()
    const byteByByte = new TransformStream<Uint8Array, Uint8Array>({
      transform: (chunk, controller) => chunk.forEach((byte) => void controller.enqueue(Uint8Array.of(byte))),
    })
    const client = new OpenAI({
      baseURL,
      apiKey: 'k',
      fetch: async (url, init) => {
        const response = await fetch(url as string, init as RequestInit)
        return new Response(response.body!.pipeThrough(byteByByte), response)
      },
    })
    const stream = await client.chat.completions.create({ model: 'tiny', messages, stream: true })
    let text = ''
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ''
    expect(text).toBe('Hello, wörld 🌍')
  })

  it('lists, gets and deletes models, ids with ":" and "/" included', async () => {
    const { client, services } = await setupClient()
    const ids: string[] = []
    for await (const model of client.models.list()) ids.push(model.id)
    expect(ids).toEqual(['tiny', 'run-1:ckpt-step-5', 'org/model:tag'])
    for (const id of ids) expect((await client.models.retrieve(id)).id).toBe(id)
    expect(await client.models.delete('org/model:tag')).toMatchObject({ id: 'org/model:tag', deleted: true })
    expect(services.models.ids.has('org/model:tag')).toBe(false)
    await expect(client.models.delete('tiny')).rejects.toBeInstanceOf(BadRequestError)
    await expect(client.models.retrieve('tiny%2F')).rejects.toBeInstanceOf(NotFoundError)
    await expect(client.models.retrieve('nobody')).rejects.toMatchObject({
      status: 404,
      code: 'model_not_found',
      param: 'model',
    })
  })

  it.each([
    ['invalid', BadRequestError],
    ['not_found', NotFoundError],
    ['conflict', ConflictError],
    ['unavailable', InternalServerError],
    ['surprising', InternalServerError],
  ])('raises its own class for the kind %s', async (kind, expected) => {
    const { client, services } = await setupClient()
    services.chat.failure = { error: new FakeError(kind, 'c', 'm'), afterPieces: 0 }
    const error = await client.chat.completions.create({ model: 'tiny', messages }).catch((thrown) => thrown)
    expect(error).toBeInstanceOf(expected)
    expect(error.requestID).toBeTruthy()
  })

  it('raises an error that comes in the middle of a stream', async () => {
    const { client, services } = await setupClient()
    services.chat.failure = {
      error: new FakeError('unavailable', 'engine_lost', 'The engine ended.'),
      afterPieces: 2,
    }
    const stream = await client.chat.completions.create({ model: 'tiny', messages, stream: true })
    let text = ''
    const reading = async () => {
      for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ''
    }
    const error = await reading().catch((thrown) => thrown)
    expect(error).toBeInstanceOf(APIError)
    expect(error.message).toContain('The engine ended.')
    expect(text).toBe('Hello, ')
  })

  it('does not retry a conflict', async () => {
    const { services, baseURL } = await setupClient()
    services.chat.failure = { error: new FakeError('conflict', 'c', 'm'), afterPieces: 0 }
    const client = new OpenAI({ baseURL, apiKey: 'k', maxRetries: 2 })
    await expect(client.chat.completions.create({ model: 'tiny', messages })).rejects.toBeInstanceOf(
      ConflictError,
    )
    expect(services.chat.requests).toHaveLength(1)
  })

  it('authenticates with its API key', async () => {
    const services = new FakeServices()
    services.keys = ['right']
    const { client, baseURL } = await setupClient(services)
    await expect(client.models.list()).rejects.toMatchObject({ status: 401, code: 'invalid_api_key' })
    expect((await new OpenAI({ baseURL, apiKey: 'right' }).models.list()).data).toHaveLength(3)
  })
})

describe('a client that disconnects', () => {
  it.each([true, false])('ends the generation (stream: %s)', async (stream) => {
    const { client, services } = await setupClient()
    services.chat.hangs = true
    const abort = new AbortController()
    const answer = client.chat.completions.create(
      { model: 'tiny', messages, stream },
      { signal: abort.signal },
    )
    const outcome = answer.catch((error) => error)
    await until(() => services.chat.requests.length === 1)
    if (stream) await answer
    abort.abort()
    await outcome
    await until(() => services.chat.aborted === 1 && services.chat.closed === 1)
  })

  it('ends the generation also when its request came in chunks', async () => {
    const { baseURL, services } = await setupClient()
    services.chat.hangs = true
    const abort = new AbortController()
    const outcome = fetch(`${baseURL}/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: ReadableStream.from([Buffer.from(JSON.stringify({ model: 'tiny', messages }))]),
      duplex: 'half',
      signal: abort.signal,
    }).catch((error) => error)
    await until(() => services.chat.requests.length === 1)
    abort.abort()
    await outcome
    await until(() => services.chat.aborted === 1)
  })
})
