import { describe, expect, it } from 'vitest'
import { createApp } from '../../routes/app.ts'
import type { AppOptions } from '../../routes/app-options.ts'
import type { Scope } from '../../routes/scopes.ts'
import { FakeServices, fakeOptions } from './fake-services.ts'

const newApp = (options: Partial<AppOptions> = {}, keys: string[] = []) => {
  const services = new FakeServices()
  services.keys = keys
  return createApp(services.asServices(), fakeOptions(options))
}

const statusOf = async (
  app: ReturnType<typeof newApp>,
  headers: Record<string, string>,
  path = '/v1/models',
) => (await app.request(path, { headers })).status

describe('the Host check', () => {
  it.each(['localhost', 'localhost:8000', '127.0.0.1:8000', '[::1]:8000', 'LOCALHOST:1', 'anneal.lan:8000'])(
    'lets %s in',
    async (host) => {
      expect(await statusOf(newApp({ allowedHosts: ['Anneal.lan'] }), { host })).toBe(200)
    },
  )

  it.each([
    'evil.example',
    'localhost.evil.example',
    '127.0.0.1.evil.example:8000',
    '[::2]',
    '',
    'localhost@evil',
  ])('keeps %j out, /health included', async (host) => {
    expect(await statusOf(newApp(), { host })).toBe(403)
    expect(await statusOf(newApp(), { host }, '/health')).toBe(403)
  })
})

describe('the Origin check', () => {
  const host = 'localhost:8000'

  it('lets requests without Origin, of the same origin and of configured origins in', async () => {
    const app = newApp({ allowedOrigins: ['https://ui.example'] })
    expect(await statusOf(app, { host })).toBe(200)
    expect(await statusOf(app, { host, origin: 'http://localhost:8000' })).toBe(200)
    expect(await statusOf(app, { host, origin: 'https://ui.example' })).toBe(200)
  })

  it.each(['https://evil.example', 'null', 'http://localhost:9000', 'localhost:8000'])(
    'keeps %s out',
    async (origin) => {
      expect(await statusOf(newApp(), { host, origin })).toBe(403)
    },
  )
})

describe('CORS', () => {
  const preflight = {
    method: 'OPTIONS',
    headers: {
      origin: 'https://ui.example',
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization,content-type,x-stainless-lang',
    },
  }

  it('is off by default', async () => {
    const app = newApp()
    expect((await app.request('/v1/models')).headers.get('access-control-allow-origin')).toBeNull()
    expect((await app.request('/v1/chat/completions', preflight)).status).toBe(403)
  })

  it("answers the preflight of a configured origin without a key, with OpenAI's headers", async () => {
    const app = newApp({ allowedOrigins: ['https://ui.example'] }, ['k'])
    const response = await app.request('/v1/chat/completions', preflight)
    expect(response.status).toBe(204)
    expect(response.headers.get('access-control-allow-origin')).toBe('https://ui.example')
    expect(response.headers.get('access-control-allow-headers')).toContain('x-stainless-retry-count')
  })

  it('puts its headers on errors too, so that a page can read them', async () => {
    const app = newApp({ allowedOrigins: ['https://ui.example'] }, ['k'])
    const response = await app.request('/v1/models', { headers: { origin: 'https://ui.example' } })
    expect(response.status).toBe(401)
    expect(response.headers.get('access-control-allow-origin')).toBe('https://ui.example')
  })
})

describe('API keys', () => {
  const app = newApp({}, ['right'])

  /** The browser's page and its files, the same for everybody; the page asks for the key before it reads anything. */
  const page = ['/', '/icon.svg', '/assets/:name']

  it("are asked for on every route but /health and the browser's page", async () => {
    const paths = app.routes
      .filter(({ method, path }) => method !== 'ALL' && path !== '/health' && !path.includes('*'))
      .filter(({ method, path }) => method !== 'GET' || !page.includes(path))
      .map(({ method, path }) => ({ method, path: path.replace(/\{[^}]*\}/g, '').replace(/:\w+/g, 'x') }))
    expect(paths.length).toBeGreaterThan(35)
    for (const { method, path } of paths) {
      const response = await app.request(path, { method })
      // Ollama's registry: its client cannot answer a challenge.
      const isRegistry = path.startsWith('/v2/')
      expect(response.status, `${method} ${path}`).toBe(isRegistry ? 403 : 401)
      expect(response.headers.get('www-authenticate')).toBe(isRegistry ? null : 'Bearer')
    }
    expect((await app.request('/nowhere')).status).toBe(401)
    for (const path of ['/health', '/', '/icon.svg']) expect((await app.request(path)).status, path).toBe(200)
    for (const path of ['/assets/absent.js', '/assets/..%2findex.html', '/assets/%2e%2e/index.html']) {
      expect((await app.request(path)).status, path).toBeGreaterThanOrEqual(400)
    }
  })

  it('open with the right key only', async () => {
    expect(await statusOf(app, { authorization: 'Bearer right' })).toBe(200)
    expect(await statusOf(app, { authorization: 'bearer right' })).toBe(200)
    for (const authorization of ['Bearer wrong', 'Bearer right x', 'Basic right', 'right', 'Bearer ']) {
      expect(await statusOf(app, { authorization }), authorization).toBe(401)
    }
  })
})

describe('scopes', () => {
  /** An application with a key named after each scope. */
  function appWithScopes() {
    const services = new FakeServices()
    services.keys = ['chat', 'jobs', 'metrics', 'admin']
    for (const key of services.keys) services.scopes[key] = [key as Scope]
    return createApp(services.asServices(), fakeOptions({}))
  }

  it.each([
    ['POST', '/v1/load_lora_adapter', ['admin']],
    ['POST', '/v1/unload_lora_adapter', ['admin']],
    ['POST', '/v1/%6Coad_lora_adapter', ['admin']],
    ['POST', '/v1/something/new', ['admin']],
    ['POST', '/v1/chat/completions', ['chat', 'admin']],
    ['POST', '/v1/chat/completions/render', ['chat', 'admin']],
    ['POST', '/v1/tokenize', ['chat', 'admin']],
    ['GET', '/v1/models', ['chat', 'jobs', 'admin']],
    ['DELETE', '/v1/models/run-1', ['jobs', 'admin']],
    ['POST', '/v1/models/import', ['jobs', 'admin']],
    ['POST', '/v1/training/runs', ['jobs', 'admin']],
    ['GET', '/v1/files', ['jobs', 'admin']],
    ['GET', '/metrics', ['metrics', 'admin']],
    ['GET', '/openapi.json', ['chat', 'jobs', 'metrics', 'admin']],
  ])('%s %s takes a key for %j', async (method, path, allowed) => {
    const app = appWithScopes()
    for (const key of ['chat', 'jobs', 'metrics', 'admin']) {
      const { status } = await app.request(path, { method, headers: { authorization: `Bearer ${key}` } })
      expect(status === 403, key).toBe(!allowed.includes(key))
    }
  })

  it('are named in the answer, in the envelope', async () => {
    const headers = { authorization: 'Bearer chat', 'content-type': 'application/json' }
    const init = { method: 'POST', headers, body: '{"lora_name":"run-1"}' }
    const response = await appWithScopes().request('/v1/load_lora_adapter', init)
    expect(response.status).toBe(403)
    expect(await response.json()).toEqual({
      error: {
        message: 'This takes an API key with the scope admin; yours has chat.',
        type: 'permission_error',
        param: null,
        code: 'insufficient_scope',
      },
    })
  })

  it('are not asked for where no keys are configured', async () => {
    const app = createApp(new FakeServices().asServices(), fakeOptions({}))
    const init = {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"lora_name":"base"}',
    }
    expect((await app.request('/v1/load_lora_adapter', init)).status).not.toBe(403)
  })
})
