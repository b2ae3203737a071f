import { once } from 'node:events'
import { connect } from 'node:net'
import { z } from '@hono/zod-openapi'
import { describe, expect, it } from 'vitest'
import { createApp } from '../../routes/app.ts'
import type { ResponseEntry } from '../../routes/app-options.ts'
import { toHttpError } from '../../routes/errors.ts'
import { describeIssues, type Issue } from '../../routes/validation.ts'
import { FakeError, FakeServices, fakeOptions, fakeRun } from './fake-services.ts'
import { serveApp } from './serve.ts'

const config = { model_name_or_path: 'tiny', dataset: 'identity' }
const post = (body: unknown, headers: Record<string, string> = { 'content-type': 'application/json' }) => ({
  method: 'POST',
  headers,
  body: typeof body === 'string' ? body : JSON.stringify(body),
})

function setup() {
  const services = new FakeServices()
  const entries: ResponseEntry[] = []
  const app = createApp(services.asServices(), fakeOptions({ onResponse: (entry) => entries.push(entry) }))
  return { services, app, entries }
}

const envelope = async (response: Response) =>
  (
    (await response.json()) as {
      error: { message: string; type: string; param: string | null; code: string }
    }
  ).error

describe('toHttpError', () => {
  it.each([
    ['invalid', 400],
    ['unsupported', 400],
    ['refused', 400],
    ['too_large', 400],
    ['not_found', 404],
    ['conflict', 409],
    ['unavailable', 503],
  ])('maps the kind %s to %i with message, param and code kept', (kind, status) => {
    const error = toHttpError(new FakeError(kind, 'some_code', 'It is wrong.', 'some.field'))
    expect(error.status).toBe(status)
    expect(error.expected).toBe(true)
    expect(error.body.error).toMatchObject({
      message: 'It is wrong.',
      code: 'some_code',
      param: 'some.field',
    })
  })

  it('tells clients not to retry a conflict, and when to retry what is unavailable', () => {
    expect(toHttpError(new FakeError('conflict', 'c', 'm')).headers).toEqual({ 'x-should-retry': 'false' })
    expect(toHttpError(new FakeError('unavailable', 'c', 'm')).headers).toEqual({ 'retry-after': '5' })
  })

  it.each([
    new Error('secret path'),
    new FakeError('internal', 'c', 'secret path'),
    'secret path',
    undefined,
    null,
  ])('hides what nobody threw on purpose: %s', (thrown) => {
    const { status, body, expected } = toHttpError(thrown)
    expect(status).toBe(500)
    expect(expected).toBe(false)
    expect(JSON.stringify(body)).not.toContain('secret')
  })
})

describe('describeIssues', () => {
  const issuesOf = (schema: z.ZodType, value: unknown) =>
    describeIssues((schema.safeParse(value).error?.issues ?? []) as Issue[])

  it('lists every failing field and takes param and code from the first', () => {
    const schema = z.strictObject({ lora_rank: z.int().min(1), dataset: z.string() })
    const { param, code, message } = issuesOf(schema, { lora_rank: 0, lora_rnk: 8 })
    expect(param).toBe('lora_rank')
    expect(code).toBe('invalid_value')
    expect(message).toMatch(/^lora_rank: .+; dataset: .+received undefined; lora_rnk: unknown field$/)
  })

  it('names an unknown and a missing field by code', () => {
    const schema = z.strictObject({ dataset: z.string() })
    expect(issuesOf(schema, { dataset: 'a', x: 1 })).toMatchObject({ param: 'x', code: 'unknown_field' })
    expect(issuesOf(schema, {})).toMatchObject({ param: 'dataset', code: 'missing_field' })
  })

  it('describes a union by the branch that was meant', () => {
    const schema = z.object({ stop: z.union([z.string(), z.array(z.string().min(1, 'must not be empty'))]) })
    expect(issuesOf(schema, { stop: ['a', ''] })).toMatchObject({
      param: 'stop.1',
      message: 'stop.1: must not be empty',
    })
    expect(issuesOf(schema, { stop: 5 })).toMatchObject({
      param: 'stop',
      message: 'stop: must be one of: string, array',
    })
    expect(issuesOf(schema, {})).toMatchObject({ param: 'stop', code: 'missing_field' })
    const choice = z.object({ tool_choice: z.union([z.enum(['none', 'auto']), z.strictObject({})]) })
    expect(issuesOf(choice, { tool_choice: 'foo' }).message).toBe(
      'tool_choice: must be one of: "none", "auto", object',
    )
    const short = z.object({
      stop: z.union([z.string(), z.array(z.string()).max(1, 'one at most'), z.array(z.int())]),
    })
    expect(issuesOf(short, { stop: ['a', 'b'] }).message).toBe('stop: one at most')
  })

  it('lists ten faults and counts the others', () => {
    const { message } = issuesOf(z.array(z.int()), Array(25).fill('a'))
    expect(message).toMatch(/^0: .*; 9: [^;]*; and 15 more$/)
  })
})

describe('requests', () => {
  it('answer unknown routes in the envelope with 404', async () => {
    const { app, entries } = setup()
    const response = await app.request('/v1/nothing')
    expect(response.status).toBe(404)
    expect((await envelope(response)).code).toBe('unknown_route')
    expect(entries[0]).toMatchObject({ status: 404, path: '/v1/nothing', method: 'GET' })
  })

  it.each([
    ['PUT', '/v1/models', 'HEAD, GET'],
    ['GET', '/v1/chat/completions', 'POST'],
    ['PATCH', '/v1/models/some%2Fname', 'HEAD, GET, DELETE'],
    ['POST', '/hub/anneal/a/resolve/main/folder/file.bin', 'HEAD, GET'],
    ['POST', '/v1/exports/a/files/folder/file.bin', 'HEAD, GET'],
    ['DELETE', '/', 'HEAD, GET'],
    ['POST', '/health', 'HEAD, GET'],
  ])('answer %s %s with 405 and the methods that there are', async (method, path, allow) => {
    const { app } = setup()
    const response = await app.request(path, { method })
    expect([response.status, response.headers.get('allow')]).toEqual([405, allow])
    expect((await envelope(response)).code).toBe('method_not_allowed')
    const options = await app.request(path, { method: 'OPTIONS' })
    expect([options.status, options.headers.get('allow')]).toEqual([204, allow])
  })

  it('answer a method of an unknown path with 404, and ask for the key first', async () => {
    const { app, services } = setup()
    expect((await app.request('/v1/nothing', { method: 'PUT' })).status).toBe(404)
    services.keys = ['k']
    expect((await app.request('/v1/models', { method: 'PUT' })).status).toBe(401)
  })

  it('carry a request id in every answer and in its report, the pattern of the route included', async () => {
    const { app, entries, services } = setup()
    services.training.add(fakeRun('run-1'))
    for (const path of ['/v1/training/runs/run-1', '/v1/training/runs/gone', '/nowhere', '/docs']) {
      const response = await app.request(path)
      expect(response.headers.get('x-request-id'), path).toBe(entries.at(-1)?.requestId)
      expect(response.headers.get('x-content-type-options'), path).toBe('nosniff')
    }
    expect(entries[0]).toMatchObject({ route: '/v1/training/runs/:id', status: 200 })
    const own = await app.request('/health', { headers: { 'x-request-id': 'mine-1' } })
    expect(own.headers.get('x-request-id')).toBe('mine-1')
  })

  it('report the cause of a generic 500 and keep it out of the answer', async () => {
    const { app, entries, services } = setup()
    const cause = new Error('secret path')
    services.training.failure = cause
    const response = await app.request('/v1/training/runs', post(config))
    expect(response.status).toBe(500)
    expect(await response.text()).not.toContain('secret')
    expect(entries[0]?.cause).toBe(cause)
  })

  it('say what is wrong with a body without JSON, of another type or too large', async () => {
    const { app } = setup()
    const chat = '/v1/chat/completions'
    for (const path of ['/v1/training/runs', '/v1/training/preview', chat, '/v1/merges']) {
      const broken = await app.request(path, post('{"a":'))
      expect([broken.status, (await envelope(broken)).code], path).toEqual([400, 'invalid_json'])
      const text = await app.request(path, post('{}', { 'content-type': 'text/plain' }))
      expect([text.status, (await envelope(text)).code], path).toEqual([415, 'unsupported_media_type'])
      const list = await app.request(path, post([]))
      expect([list.status, (await envelope(list)).code], path).toEqual([400, 'invalid_value'])
      const large = await app.request(path, post({ a: 'x'.repeat(100_001) }))
      expect([large.status, (await envelope(large)).code], path).toEqual([413, 'payload_too_large'])
      const empty = await app.request(path, { method: 'POST' })
      expect([400, 415], path).toContain(empty.status)
      expect((await envelope(empty)).message, path).toBeTruthy()
    }
  })

  it('count the bytes of a chunked body against the limit', async () => {
    const base = await serveApp(new FakeServices())
    const chunks = async function* () {
      for (let i = 0; i < 20; i++) yield Buffer.alloc(10_000, 'x')
    }
    const response = await fetch(`${base}/v1/merges`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: ReadableStream.from(chunks()),
      duplex: 'half',
    })
    expect(response.status).toBe(413)
    expect((await envelope(response)).code).toBe('payload_too_large')
  })

  it.each(['content-length: 80000000', 'transfer-encoding: chunked'])(
    'reach a client that writes all of a refused body before it reads (%s)',
    async (framing) => {
      const { hostname, port } = new URL(await serveApp(new FakeServices()))
      const socket = connect(Number(port), hostname)
      const head = `POST /v1/merges HTTP/1.1\r\nhost: ${hostname}\r\nconnection: close\r\ncontent-type: application/json\r\n${framing}`
      socket.write(`${head}\r\n\r\n`)
      const part = Buffer.alloc(1_000_000, 'x')
      const isChunked = framing.startsWith('transfer')
      for (let i = 0; i < 80; i++) {
        const piece = isChunked ? Buffer.concat([Buffer.from('f4240\r\n'), part, Buffer.from('\r\n')]) : part
        if (!socket.write(piece)) await once(socket, 'drain')
      }
      if (isChunked) socket.write('0\r\n\r\n')
      const chunks: Buffer[] = []
      for await (const chunk of socket) chunks.push(chunk as Buffer)
      expect(Buffer.concat(chunks).toString()).toMatch(/^HTTP\/1\.1 413 /)
    },
  )

  it('name the unknown field of a training request', async () => {
    const { app } = setup()
    const response = await app.request('/v1/training/preview', post({ ...config, lora_rnk: 4 }))
    expect(response.status).toBe(400)
    expect(await envelope(response)).toMatchObject({ param: 'lora_rnk', code: 'unknown_field' })
  })

  it('refuse what the policy refuses with its reason', async () => {
    const { app } = setup()
    const response = await app.request('/v1/exports', post({ model: 'merge-1', bits: 2, format: 'gptq' }))
    expect(response.status).toBe(400)
    expect(await envelope(response)).toMatchObject({ param: 'bits', code: 'bits_not_allowed' })
  })

  it('want either a model or a base with its adapter for a merge', async () => {
    const { app, services } = setup()
    const merge = (body: object) => app.request('/v1/merges', post(body))
    expect((await envelope(await merge({}))).param).toBe('model')
    expect((await envelope(await merge({ base: 'tiny' }))).param).toBe('adapter')
    expect((await envelope(await merge({ model: 'run-1', base: 'a', adapter: 'b' }))).param).toBe('model')
    expect((await merge({ model: 'run-1' })).status).toBe(201)
    expect(services.merges.requests).toEqual([{ model: 'run-1' }])
  })
})

describe('a request that the HTTP adapter cannot read', () => {
  it('is answered in the envelope', async () => {
    const { hostname, port } = new URL(await serveApp(new FakeServices()))
    const socket = connect(Number(port), hostname)
    socket.write('GET / HTTP/1.1\r\nhost: a b\r\nconnection: close\r\n\r\n')
    const chunks: Buffer[] = []
    for await (const chunk of socket) chunks.push(chunk as Buffer)
    const text = Buffer.concat(chunks).toString()
    expect(text).toMatch(/^HTTP\/1\.1 400 /)
    expect(text).toContain('"code":"malformed_request"')
  })
})

describe('health and metrics', () => {
  it('answer 200 when ready and 503 with Retry-After before and after', async () => {
    const { app, services } = setup()
    expect(await (await app.request('/health')).json()).toEqual({
      status: 'ok',
      version: '1.2.3',
      device: 'cpu',
      device_reason: 'It is asked for.',
      uptime_seconds: 1.5,
    })
    services.healthStatus = 'starting'
    const starting = await app.request('/health')
    expect([starting.status, starting.headers.get('retry-after')]).toEqual([503, '5'])
    expect((await envelope(starting)).type).toBe('unavailable_error')
    services.healthStatus = 'preload_failed'
    const failed = await app.request('/health')
    expect(failed.status).toBe(503)
    expect(await failed.json()).toMatchObject({
      error: { code: 'preload_failed', message: expect.stringContaining('big (unsupported_model)') },
    })
    const metrics = await app.request('/metrics')
    expect(metrics.headers.get('content-type')).toBe('text/plain; version=0.0.4')
    expect(await metrics.text()).toContain('anneal_runs_total')
  })
})
