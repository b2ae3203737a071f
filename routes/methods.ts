import type { OpenAPIHono } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { answerError, RouteError } from './errors.ts'

/** Those that routes are registered with; GET answers HEAD too. */
const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']

/** The methods that a path has, as an Allow header lists them; none where there is no such path. */
function methodsOf({ router }: Pick<OpenAPIHono, 'router'>, path: string): string[] {
  const found = METHODS.filter((method) => {
    const [matches] = router.match(method, path)
    // What is used for every method, such as authentication, matches everywhere.
    return matches.some(([[, route]]) => route.method === method)
  })
  return found.includes('GET') ? ['HEAD', ...found] : found
}

/** Answers what no route does: 404 where there is no such path, else 405 with Allow, and OPTIONS with Allow alone. */
export function answerUnrouted(app: Pick<OpenAPIHono, 'router'>, c: Context): Response {
  const { method, path } = c.req
  const allowed = methodsOf(app, path)
  if (allowed.length === 0) {
    const message = `There is no ${method} ${path} here. /openapi.json lists what there is.`
    return answerError(new RouteError('not_found', 'unknown_route', message), c)
  }
  const allow = allowed.join(', ')
  if (method === 'OPTIONS') return c.body(null, 204, { allow })
  const message = `${path} does not take ${method}; it takes ${allow}.`
  const response = answerError(new RouteError('method_not_allowed', 'method_not_allowed', message), c)
  response.headers.set('allow', allow)
  return response
}
