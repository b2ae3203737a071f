import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { defaultHook } from './errors.ts'
import { conflict, errors, idParam, json, listBody, missing } from './responses.ts'
import { deleted, listOf } from './schemas/common.ts'
import { model } from './schemas/models.ts'
import type { ModelService } from './services.ts'

const tags = ['Models']
// Ids may hold ':' and, percent-encoded, '/': the router matches one segment and decodes it once.
const params = idParam('run-3f9a1c07b2de:ckpt-step-100')

const list = createRoute({
  method: 'get',
  path: '/v1/models',
  tags,
  summary: 'List every model that answers',
  description: 'Bases, runs, their checkpoints, merges and exports.',
  responses: { 200: json(listOf(model), 'All models.'), ...errors },
})

const get = createRoute({
  method: 'get',
  path: '/v1/models/{id}',
  tags,
  summary: 'Get one model',
  request: { params },
  responses: { 200: json(model, 'The model.'), ...errors, ...missing },
})

const remove = createRoute({
  method: 'delete',
  path: '/v1/models/{id}',
  tags,
  summary: 'Delete a model that was made here',
  description: 'A base model is refused, a model that a job uses is a conflict.',
  request: { params },
  responses: { 200: json(deleted, 'It is gone.'), ...errors, ...missing, ...conflict },
})

/** /v1/models, as OpenAI's clients know it. */
export function modelRoutes(service: ModelService): OpenAPIHono {
  return new OpenAPIHono({ defaultHook })
    .openapi(list, async (c) => c.json(listBody(await service.list()), 200))
    .openapi(get, async (c) => c.json(await service.get(c.req.valid('param').id), 200))
    .openapi(remove, async (c) => {
      const { id } = c.req.valid('param')
      await service.delete(id)
      return c.json({ id, object: 'model', deleted: true as const }, 200)
    })
}
