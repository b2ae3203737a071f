import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { defaultHook } from './errors.ts'
import { jobRoutes } from './jobs.ts'
import { errors, json, jsonBody, missing } from './responses.ts'
import { merge, mergeRequest } from './schemas/artifacts.ts'
import type { MergeService } from './services.ts'
import type { StreamSettings } from './sse.ts'

const path = '/v1/merges'
const exampleId = 'merge-91be04d2aa3c'

const create = createRoute({
  method: 'post',
  path,
  tags: ['Merges'],
  summary: 'Merge an adapter into its base',
  request: { body: jsonBody(mergeRequest) },
  responses: { 201: json(merge, 'The queued merge.'), ...errors, ...missing },
})

/** /v1/merges: full models made of a base and an adapter. */
export function mergeRoutes(service: MergeService, streams: StreamSettings): OpenAPIHono {
  const routes = new OpenAPIHono({ defaultHook }).openapi(create, async (c) =>
    c.json(await service.create(c.req.valid('json')), 201),
  )
  routes.route('/', jobRoutes(merge, service, { path, tag: 'Merges', noun: 'merge', exampleId, streams }))
  return routes
}
