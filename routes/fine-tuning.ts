import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { defaultHook } from './errors.ts'
import { conflict, errors, idParam, json, jsonBody, missing, pageBody } from './responses.ts'
import { pageOf } from './schemas/common.ts'
import {
  checkpointPage,
  fineTuningCheckpoint,
  fineTuningEvent,
  fineTuningJob,
  fineTuningPage,
  fineTuningRequest,
} from './schemas/fine-tuning.ts'
import type { FineTuningService } from './services.ts'

const path = '/v1/fine_tuning/jobs'
const tags = ['Fine-tuning']
const params = idParam('ftjob-3f9a1c07b2de')

const create = createRoute({
  method: 'post',
  path,
  tags,
  summary: "Fine-tune a model, in OpenAI's form",
  description:
    'Starts a training run on uploaded files. `lora` and the field names of LLaMA-Factory are accepted beside the usual ones.',
  request: { body: jsonBody(fineTuningRequest) },
  responses: { 200: json(fineTuningJob, 'The queued job.'), ...errors, ...missing },
})

const list = createRoute({
  method: 'get',
  path,
  tags,
  summary: 'List the fine-tuning jobs, newest first',
  description: '`metadata[KEY]=VALUE` keeps the jobs with this metadata.',
  request: { query: fineTuningPage },
  responses: { 200: json(pageOf(fineTuningJob), 'One page.'), ...errors },
})

const get = createRoute({
  method: 'get',
  path: `${path}/{id}`,
  tags,
  summary: 'Get one fine-tuning job',
  request: { params },
  responses: { 200: json(fineTuningJob, 'The job.'), ...errors, ...missing },
})

const change = <A extends string>(action: A, summary: string) =>
  createRoute({
    method: 'post',
    path: `${path}/{id}/${action}` as `${typeof path}/{id}/${A}`,
    tags,
    summary,
    request: { params },
    responses: { 200: json(fineTuningJob, 'The job as it stands.'), ...errors, ...missing, ...conflict },
  })

const events = createRoute({
  method: 'get',
  path: `${path}/{id}/events`,
  tags,
  summary: "A job's events, newest first",
  request: { params, query: fineTuningPage },
  responses: { 200: json(pageOf(fineTuningEvent), 'One page.'), ...errors, ...missing },
})

const checkpoints = createRoute({
  method: 'get',
  path: `${path}/{id}/checkpoints`,
  tags,
  summary: "A job's checkpoints, newest first; each is a model",
  request: { params, query: checkpointPage },
  responses: { 200: json(pageOf(fineTuningCheckpoint), 'One page.'), ...errors, ...missing },
})

/** `metadata[k]=v` of the query, as OpenAI's clients write it. */
function metadataOf(c: Context): Record<string, string> {
  const pairs = Object.entries(c.req.query()).flatMap(([name, value]) => {
    const key = /^metadata\[(.{1,64})\]$/.exec(name)?.[1]
    return key === undefined ? [] : [[key, value] as const]
  })
  return Object.fromEntries(pairs)
}

/** /v1/fine_tuning/jobs as OpenAI's clients use it. */
export function fineTuningRoutes(service: FineTuningService): OpenAPIHono {
  return new OpenAPIHono({ defaultHook })
    .openapi(create, async (c) => c.json(await service.create(c.req.valid('json')), 200))
    .openapi(list, async (c) => {
      return c.json(pageBody(await service.list({ ...c.req.valid('query'), metadata: metadataOf(c) })), 200)
    })
    .openapi(get, async (c) => c.json(await service.get(c.req.valid('param').id), 200))
    .openapi(change('cancel', 'Cancel a job; a checkpoint is kept'), async (c) =>
      c.json(await service.cancel(c.req.valid('param').id), 200),
    )
    .openapi(change('pause', 'Stop a job with a checkpoint, to go on later'), async (c) =>
      c.json(await service.pause(c.req.valid('param').id), 200),
    )
    .openapi(change('resume', 'Go on with a paused job'), async (c) =>
      c.json(await service.resume(c.req.valid('param').id), 200),
    )
    .openapi(events, async (c) => {
      return c.json(pageBody(await service.events(c.req.valid('param').id, c.req.valid('query'))), 200)
    })
    .openapi(checkpoints, async (c) => {
      return c.json(pageBody(await service.checkpoints(c.req.valid('param').id, c.req.valid('query'))), 200)
    })
}
