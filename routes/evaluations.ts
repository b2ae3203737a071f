import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import { defaultHook } from './errors.ts'
import { sendText } from './files.ts'
import { jobRoutes } from './jobs.ts'
import { conflict, errors, idParam, json, jsonBody, media, missing } from './responses.ts'
import { deleted } from './schemas/common.ts'
import { evaluation, evaluationRequest } from './schemas/evaluations.ts'
import type { EvaluationService } from './services.ts'
import type { StreamSettings } from './sse.ts'

const path = '/v1/evaluations'
const tags = ['Evaluations']
const params = idParam('eval-8b1d4f2a90c7')

const create = createRoute({
  method: 'post',
  path,
  tags,
  summary: 'Evaluate models on a dataset or a multiple-choice task',
  description:
    'Loss, perplexity and token accuracy of the answers, and BLEU-4 and ROUGE of generated ones as LLaMA-Factory computes ' +
    'them. Several models give a table side by side.',
  request: { body: jsonBody(evaluationRequest) },
  responses: { 201: json(evaluation, 'The queued evaluation.'), ...errors, ...missing },
})

const resume = createRoute({
  method: 'post',
  path: `${path}/{id}/resume`,
  tags,
  summary: 'Go on with a failed or cancelled evaluation after its last finished row',
  request: { params },
  responses: { 200: json(evaluation, 'The queued evaluation.'), ...errors, ...missing, ...conflict },
})

const remove = createRoute({
  method: 'delete',
  path: `${path}/{id}`,
  tags,
  summary: 'Delete an evaluation and its files',
  request: { params },
  responses: { 200: json(deleted, 'It is gone.'), ...errors, ...missing, ...conflict },
})

const predictions = createRoute({
  method: 'get',
  path: `${path}/{id}/predictions`,
  tags,
  summary: 'The generated answers so far',
  request: {
    params,
    query: z.object({
      model: z.string().max(150).optional().openapi({ description: 'The first model by default.' }),
    }),
  },
  responses: {
    200: media('text/plain', 'One line `{"prompt", "predict", "label"}` for each row.'),
    ...errors,
    ...missing,
  },
})

/** /v1/evaluations: create, list, get, events, cancel, resume, delete, predictions. */
export function evaluationRoutes(service: EvaluationService, streams: StreamSettings): OpenAPIHono {
  const routes = new OpenAPIHono({ defaultHook })
    .openapi(create, async (c) => c.json(await service.create(c.req.valid('json')), 201))
    .openapi(resume, async (c) => c.json(await service.resume(c.req.valid('param').id), 200))
    .openapi(remove, async (c) => {
      const { id } = c.req.valid('param')
      await service.delete(id)
      return c.json({ id, object: 'evaluation', deleted: true as const }, 200)
    })
    .openapi(predictions, async (c) => {
      const stored = await service.predictions(c.req.valid('param').id, c.req.valid('query').model)
      return sendText(c, stored, undefined)
    })
  const settings = { path, tag: 'Evaluations', noun: 'evaluation', exampleId: 'eval-8b1d4f2a90c7', streams }
  routes.route('/', jobRoutes(evaluation, service, settings))
  return routes
}
