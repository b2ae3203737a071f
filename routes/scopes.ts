import type { MiddlewareHandler } from 'hono'
import { RouteError } from './errors.ts'

/**
 * What an API key is good for. `chat`: ask the models that are there. `jobs`: train, merge, export, evaluate, and the data
 * and files for it. `metrics`: the numbers for Prometheus. `admin`: all of it, and what changes the server for everybody.
 */
export const SCOPES = ['chat', 'jobs', 'metrics', 'admin'] as const
export type Scope = (typeof SCOPES)[number]

declare module 'hono' {
  interface ContextVariableMap {
    /** What the request's key is good for; absent where no keys are configured. */
    scopes: readonly Scope[] | undefined
  }
}

/** Every key may read how the API looks. */
const OPEN = ['/openapi.json', '/docs']

const CHAT = ['/v1/chat/completions', '/v1/completions', '/v1/embeddings', '/v1/tokenize', '/v1/detokenize']

const JOBS = [
  '/v1/training',
  '/v1/datasets',
  '/v1/merges',
  '/v1/exports',
  '/v1/imports',
  '/v1/evaluations',
  '/v1/files',
  '/v1/fine_tuning',
  '/v1/models',
  '/hub',
  '/v2',
]

const isBelow = (path: string, places: readonly string[]) =>
  places.some((place) => path === place || path.startsWith(`${place}/`))

/** The scopes of which one lets a request pass, besides admin; undefined where any key does. What nobody listed is for admins. */
function scopesFor(method: string, path: string): readonly Scope[] | undefined {
  if (isBelow(path, OPEN)) return undefined
  if (isBelow(path, CHAT)) return ['chat']
  if (path === '/metrics') return ['metrics']
  const reads = method === 'GET' || method === 'HEAD'
  if (reads && isBelow(path, ['/v1/models'])) return ['chat', 'jobs']
  return isBelow(path, JOBS) ? ['jobs'] : []
}

/** Refuses what the request's key is not good for. */
export const authorize: MiddlewareHandler = async (c, next) => {
  const held = c.get('scopes')
  const needed = held && scopesFor(c.req.method, c.req.path)
  if (needed && !held.includes('admin') && !needed.some((scope) => held.includes(scope))) {
    const message = `This takes an API key with the scope ${needed[0] ?? 'admin'}; yours has ${held.join(', ')}.`
    throw new RouteError('forbidden', 'insufficient_scope', message)
  }
  await next()
}
