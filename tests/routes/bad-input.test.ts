import { connect } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { createApp } from '../../routes/app.ts'
import { FakeServices, fakeOptions } from './fake-services.ts'
import { type JsonSchema, nearly } from './json-schema-arbitrary.ts'
import { serveApp } from './serve.ts'

interface ApiDocument {
  paths: Record<string, Record<string, { requestBody?: { content: Record<string, { schema: JsonSchema }> } }>>
  components: { schemas: Record<string, JsonSchema> }
}

const app = createApp(new FakeServices().asServices(), fakeOptions({ maxJsonBytes: 1_000_000 }))
const document = (await (await app.request('/openapi.json')).json()) as ApiDocument
const bodies = Object.entries(document.paths).flatMap(([path, methods]) => {
  const schema = methods.post?.requestBody?.content['application/json']?.schema
  return schema ? [[path.replace(/\{\w+\}/g, 'tiny'), schema] as const] : []
})

const post = (path: string, body: string | Uint8Array<ArrayBuffer>, headers: Record<string, string> = {}) =>
  app.request(path, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body })

async function expectRefusal(response: Response, code: string, status = 400): Promise<void> {
  const body = (await response.json()) as { error: Record<string, unknown> }
  expect({ status: response.status, code: body.error.code }).toEqual({ status, code })
  expect(Object.keys(body.error).sort()).toEqual(['code', 'message', 'param', 'type'])
}

describe('Bodies made from the OpenAPI document', () => {
  it.each(bodies)('%s answers in the envelope or well, never with a generic 500', async (path, schema) => {
    await fc.assert(
      fc.asyncProperty(nearly(schema, document.components.schemas), async (value) => {
        const response = await post(path, JSON.stringify(value) ?? 'null')
        const text = await response.text()
        expect(response.status, text).not.toBe(500)
        if (response.status < 400) return
        const { error } = JSON.parse(text)
        expect(error).toMatchObject({ message: expect.any(String), type: expect.any(String) })
        expect(response.headers.get('x-request-id')).toBeTruthy()
      }),
      { seed: 5, numRuns: 60 },
    )
  })
})

const CHAT = '/v1/chat/completions'

describe('A body', () => {
  it('nested too deep is refused before it is parsed', async () => {
    for (const depth of [129, 100_000]) {
      await expectRefusal(await post(CHAT, '['.repeat(depth) + ']'.repeat(depth)), 'json_too_deep')
      await expectRefusal(await post(CHAT, '{"a":'.repeat(depth)), 'json_too_deep')
    }
    const tools = JSON.stringify({ a: '[[[{{{'.repeat(100), b: '\\"[' })
    await expectRefusal(await post(CHAT, tools), 'missing_field')
  })

  it('that is no UTF-8 is refused', async () => {
    const bytes = Buffer.concat([Buffer.from('{"model":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')])
    await expectRefusal(await post(CHAT, bytes), 'invalid_utf8')
  })

  it.each([
    ['not JSON', '{"model"', 'application/json', 'invalid_json', 400],
    ['empty', '', 'application/json', 'invalid_json', 400],
    ['a form', 'model=tiny', 'application/x-www-form-urlencoded', 'unsupported_media_type', 415],
    ['plain text', '{}', 'text/plain', 'unsupported_media_type', 415],
  ])('that is %s is refused', async (_, body, type, code, status) => {
    await expectRefusal(await post(CHAT, body, { 'content-type': type }), code, status)
  })

  it('that is compressed is refused', async () => {
    const refused = await post(CHAT, '{}', { 'content-encoding': 'gzip' })
    await expectRefusal(refused, 'unsupported_content_encoding', 415)
  })

  it('that is larger than allowed is refused, and its memory comes back', async () => {
    const huge = JSON.stringify({
      model: 'tiny',
      messages: [{ role: 'user', content: 'x'.repeat(10_000_000) }],
    })
    await expectRefusal(await post(CHAT, huge), 'payload_too_large', 413)
  })

  it('may hold a key named __proto__ and changes nothing by it', async () => {
    const text = '{"model":"tiny","__proto__":{"polluted":1},"messages":[{"role":"user","content":"x"}]}'
    await expectRefusal(await post(CHAT, text), 'unknown_field')
    expect(({} as { polluted?: number }).polluted).toBeUndefined()
  })
})

describe('A half-open connection', () => {
  it('is answered with 408 when its body does not come, and closed', async () => {
    const url = new URL(await serveApp(new FakeServices(), { jsonLimits: { depth: 128, timeMs: 50 } }))
    const socket = connect(Number(url.port), url.hostname)
    const head = [
      `POST ${CHAT} HTTP/1.1`,
      `host: ${url.host}`,
      'content-type: application/json',
      'content-length: 100',
    ]
    socket.write(`${head.join('\r\n')}\r\n\r\n{"model":`)
    let text = ''
    for await (const chunk of socket.setEncoding('utf8')) text += chunk
    expect(text).toMatch(/^HTTP\/1\.1 408 /)
    expect(text).toContain('"code":"request_timeout"')
  })
})

describe('Bytes that are no request', () => {
  const head = (line: string, ...fields: string[]) =>
    [line, 'host: localhost', ...fields, '', ''].join('\r\n')
  const json = ['content-type: application/json']

  async function exchange(bytes: string): Promise<string> {
    const url = new URL(await serveApp(new FakeServices()))
    const socket = connect(Number(url.port), url.hostname)
    socket.write(bytes)
    let text = ''
    for await (const chunk of socket.setEncoding('utf8')) text += chunk
    return text
  }

  it.each([
    ['a TLS greeting', '\x16\x03\x01\x02\x00\r\n\r\n', 400, 'malformed_request'],
    ['an unknown method', head('FROB /health HTTP/1.1'), 400, 'malformed_request'],
    [
      'headers without end',
      head('GET /health HTTP/1.1', `x: ${'a'.repeat(100_000)}`),
      431,
      'headers_too_large',
    ],
    ['a URL without end', head(`GET /${'a'.repeat(100_000)} HTTP/1.1`), 431, 'headers_too_large'],
    [
      'two lengths',
      head(`POST ${CHAT} HTTP/1.1`, ...json, 'content-length: 5', 'transfer-encoding: chunked'),
      400,
      'malformed_request',
    ],
    [
      'a negative length',
      head(`POST ${CHAT} HTTP/1.1`, ...json, 'content-length: -1'),
      400,
      'malformed_request',
    ],
    ['no Host', 'GET /health HTTP/1.1\r\nconnection: close\r\n\r\n', 400, 'malformed_request'],
  ])('such as %s are answered in the envelope, and closed', async (_, bytes, status, code) => {
    const text = await exchange(bytes)
    expect(text).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
    expect(JSON.parse(text.slice(text.indexOf('{'))).error).toMatchObject({
      code,
      type: 'invalid_request_error',
    })
  })

  it('answers requests that come before the answers to earlier ones, in order', async () => {
    const bad = `${head(`POST ${CHAT} HTTP/1.1`, ...json, 'content-length: 1')}{`
    const text = await exchange(bad + head('GET /health HTTP/1.1', 'connection: close'))
    expect([...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status)).toEqual(['400', '200'])
  })

  it('that break off in the middle of a body are no failure of the server', async () => {
    const services = new FakeServices()
    const answered = vi.fn()
    const url = new URL(await serveApp(services, { onResponse: answered }))
    const socket = connect(Number(url.port), url.hostname)
    socket.end(`${head(`POST ${CHAT} HTTP/1.1`, ...json, 'content-length: 100')}{"model":`)
    await vi.waitFor(() => expect(answered).toHaveBeenCalled())
    expect(answered.mock.calls[0]![0]).toMatchObject({ status: 400 })
    expect(answered.mock.calls[0]![0]).not.toHaveProperty('cause')
  })
})
