import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { defaultHook } from './errors.ts'
import { jobRoutes } from './jobs.ts'
import { conflict, errors, json, jsonBody, missing } from './responses.ts'
import { importJob, importRequest } from './schemas/imports.ts'
import type { ImportService } from './services.ts'
import type { StreamSettings } from './sse.ts'

const create = createRoute({
  method: 'post',
  path: '/v1/models/import',
  tags: ['Models'],
  summary: 'Make a base model of a GGUF file',
  description:
    'Writes a Hugging Face folder from a GGUF file that lies in a models folder. Its header is checked before anything is queued.',
  request: { body: jsonBody(importRequest) },
  responses: { 201: json(importJob, 'The queued import.'), ...errors, ...missing, ...conflict },
})

/** /v1/models/import, and the jobs that it makes under /v1/imports. */
export function importRoutes(service: ImportService, streams: StreamSettings): OpenAPIHono {
  const routes = new OpenAPIHono({ defaultHook }).openapi(create, async (c) =>
    c.json(await service.create(c.req.valid('json')), 201),
  )
  const settings = {
    path: '/v1/imports',
    tag: 'Models',
    noun: 'import',
    exampleId: 'import-7c1f20d9be35',
    streams,
  }
  routes.route('/', jobRoutes(importJob, service, settings))
  return routes
}
