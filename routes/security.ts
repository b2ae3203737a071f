import type { MiddlewareHandler } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { cors } from 'hono/cors'
import { isConsolePath } from './console.ts'
import { RouteError } from './errors.ts'
import { isRegistryPath, ollamaHasNoKey } from './ollama.ts'
import type { AuthService } from './services.ts'

const loopbackNames = ['localhost', '127.0.0.1', '[::1]']

/** `name:port`, `[v6]:port` or a bare name, to the name in lower case. */
const hostName = (host: string): string => host.toLowerCase().replace(/:\d+$/, '')

/**
 * Refuses requests for other hosts, so that a page whose DNS name was rebound to this address cannot talk to it.
 */
export function checkHost(allowedHosts: string[]): MiddlewareHandler {
  const allowed = new Set([...loopbackNames, ...allowedHosts.map((name) => name.toLowerCase())])
  return async (c, next) => {
    const host = c.req.header('host') ?? new URL(c.req.url).host
    if (!allowed.has(hostName(host))) {
      throw new RouteError(
        'forbidden',
        'host_not_allowed',
        `The host ${JSON.stringify(host)} is not allowed here.`,
      )
    }
    await next()
  }
}

function isSameOrigin(origin: string, host: string): boolean {
  return URL.canParse(origin) && new URL(origin).host === host.toLowerCase()
}

/** Refuses requests that a browser sends for a page of another origin, unless that origin is configured. */
export function checkOrigin(allowedOrigins: string[]): MiddlewareHandler {
  return async (c, next) => {
    const origin = c.req.header('origin')
    const host = c.req.header('host') ?? new URL(c.req.url).host
    if (origin !== undefined && !isSameOrigin(origin, host) && !allowedOrigins.includes(origin)) {
      throw new RouteError(
        'forbidden',
        'origin_not_allowed',
        `The origin ${JSON.stringify(origin)} is not allowed here.`,
      )
    }
    await next()
  }
}

/** CORS for the configured origins; with none configured no CORS header is ever sent. OpenAI's client sends x-stainless-*. */
export function allowOrigins(allowedOrigins: string[]): MiddlewareHandler {
  if (allowedOrigins.length === 0) return (_c, next) => next()
  const stainless = [
    'arch',
    'async',
    'custom-poll-interval',
    'helper-method',
    'lang',
    'os',
    'package-version',
  ]
  const more = ['poll-helper', 'retry-count', 'runtime', 'runtime-version', 'timeout']
  return cors({
    origin: allowedOrigins,
    allowMethods: ['GET', 'HEAD', 'POST', 'DELETE'],
    allowHeaders: [
      ...[
        'authorization',
        'content-type',
        'last-event-id',
        'range',
        'if-range',
        'if-none-match',
        'x-request-id',
      ],
      ...['openai-organization', 'openai-project', 'user-agent'],
      ...[...stainless, ...more].map((name) => `x-stainless-${name}`),
    ],
    exposeHeaders: [
      'x-request-id',
      'retry-after',
      'etag',
      'content-range',
      'content-disposition',
      'repr-digest',
    ],
    maxAge: 600,
  })
}

/** Asks for an API key, where keys are configured, on every route except /health and the browser's page. */
export function authenticate(auth: AuthService): MiddlewareHandler {
  return async (c, next) => {
    if (auth.required && c.req.path !== '/health' && !isConsolePath(c.req.path)) {
      const key = /^Bearer +(\S+) *$/i.exec(c.req.header('authorization') ?? '')?.[1]
      if (key === undefined) {
        if (isRegistryPath(c.req.path)) throw ollamaHasNoKey()
        const message = 'Send an API key in the header `Authorization: Bearer <key>`.'
        throw new RouteError('unauthorized', 'missing_api_key', message)
      }
      const scopes = auth.authenticate(key)
      if (scopes === undefined) {
        throw new RouteError('unauthorized', 'invalid_api_key', 'The API key is not valid.')
      }
      c.set('scopes', scopes)
    }
    await next()
  }
}

/** Caps every body but the streamed upload's, which counts its own bytes. */
export function limitBody(maxBytes: number, streamedRoutes: readonly string[]): MiddlewareHandler {
  const limit = bodyLimit({
    maxSize: maxBytes,
    onError: () => {
      const message = `The request body is larger than the limit of ${maxBytes} bytes.`
      throw new RouteError('payload_too_large', 'payload_too_large', message)
    },
  })
  return (c, next) => {
    const isMultipart = (c.req.header('content-type') ?? '').toLowerCase().startsWith('multipart/')
    return streamedRoutes.includes(c.req.path) && isMultipart ? next() : limit(c, next)
  }
}

/** Headers that keep a browser from running or framing what this server sends. Pages of its own set their own policy. */
export const protectBrowsers: MiddlewareHandler = async (c, next) => {
  await next()
  const { headers } = c.res
  headers.set('x-content-type-options', 'nosniff')
  headers.set('referrer-policy', 'no-referrer')
  if (!headers.has('cross-origin-resource-policy')) headers.set('cross-origin-resource-policy', 'same-origin')
  if (!headers.has('content-security-policy')) {
    headers.set('content-security-policy', "default-src 'none'; frame-ancestors 'none'")
  }
}
