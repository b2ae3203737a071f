import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { parse as parseYaml } from 'yaml'
import { defaultHook, RouteError } from './errors.ts'
import { sendText } from './files.ts'
import { jobRoutes } from './jobs.ts'
import { conflict, errors, idParam, json, listBody, media, missing } from './responses.ts'
import { deleted, listOf } from './schemas/common.ts'
import { checkpoint, trainingPreview, trainingRun } from './schemas/training.ts'
import type { TrainingService } from './services.ts'
import type { StreamSettings } from './sse.ts'

const path = '/v1/training/runs'
const exampleId = 'run-3f9a1c07b2de'
const tags = ['Training']
const params = idParam(exampleId)

/** The name of the component that describes a training configuration in the OpenAPI document. */
export const trainingConfigComponent = 'TrainingConfig'

const configExample = {
  model_name_or_path: 'anneal-tiny',
  dataset: ['identity'],
  stage: 'sft',
  finetuning_type: 'lora',
  num_train_epochs: 3,
  lora_rank: 8,
}

/** A reference, since the application enforces the configuration: its schema only documents it here. */
const configBody = {
  required: true,
  content: {
    'application/json': {
      schema: { $ref: `#/components/schemas/${trainingConfigComponent}` },
      example: configExample,
    },
  },
}

const create = createRoute({
  method: 'post',
  path,
  tags,
  summary: 'Start a training run',
  description:
    'Queues a run. Field names and defaults are those of LLaMA-Factory; unknown fields are errors.',
  request: { body: configBody },
  responses: { 201: json(trainingRun, 'The queued run.'), ...errors, ...conflict },
})

const preview = createRoute({
  method: 'post',
  path: '/v1/training/preview',
  tags,
  summary: 'See what a run would do',
  description:
    'Steps, tokens, memory, the resolved configuration and its CLI and YAML forms. Nothing is started.',
  request: { body: configBody },
  responses: { 200: json(trainingPreview, 'The preview.'), ...errors, ...missing },
})

const log = createRoute({
  method: 'get',
  path: `${path}/{id}/log`,
  tags,
  summary: 'Read the running log',
  request: {
    params,
    query: z.object({
      tail: z.coerce.number().int().min(1).optional().openapi({
        description: 'Only the last so many bytes, cut at a character.',
      }),
    }),
  },
  responses: { 200: media('text/plain', 'The log so far.'), ...errors, ...missing },
})

const lossPicture = createRoute({
  method: 'get',
  path: `${path}/{id}/loss.png`,
  tags,
  summary: 'See the loss curve',
  request: { params },
  responses: { 200: media('image/png', 'Original and smoothed curve.', 'binary'), ...errors, ...missing },
})

const checkpoints = createRoute({
  method: 'get',
  path: `${path}/{id}/checkpoints`,
  tags,
  summary: 'List the checkpoints of a run',
  request: { params },
  responses: { 200: json(listOf(checkpoint), 'All checkpoints, by step.'), ...errors, ...missing },
})

const resume = createRoute({
  method: 'post',
  path: `${path}/{id}/resume`,
  tags,
  summary: 'Resume a failed or cancelled run from its last checkpoint, or from its start where it has none',
  request: { params },
  responses: { 200: json(trainingRun, 'The queued run.'), ...errors, ...missing, ...conflict },
})

const remove = createRoute({
  method: 'delete',
  path: `${path}/{id}`,
  tags,
  summary: 'Delete a finished run with its checkpoints',
  request: { params },
  responses: { 200: json(deleted, 'It is gone.'), ...errors, ...missing, ...conflict },
})

/** Deep nesting and repeated aliases have no place in a configuration, and make YAML expensive. */
const MAX_YAML_ALIASES = 20

const PARSERS = [
  { name: 'JSON', type: /^application\/json\s*(;|$)/i, parse: (text: string) => JSON.parse(text) as unknown },
  {
    name: 'YAML',
    type: /^(application|text)\/(x-)?yaml\s*(;|$)/i,
    parse: (text: string) => parseYaml(text, { maxAliasCount: MAX_YAML_ALIASES }) as unknown,
  },
]

/** The body, JSON or YAML, as an object; what its fields mean is the application's to say. */
async function readConfig(c: Context): Promise<Record<string, unknown>> {
  const type = c.req.header('content-type') ?? ''
  const parser = PARSERS.find((candidate) => candidate.type.test(type))
  if (!parser) {
    const message =
      'Send the configuration with the header `Content-Type: application/json`, or `application/yaml`.'
    throw new RouteError('unsupported_media', 'unsupported_media_type', message)
  }
  let body: unknown
  try {
    body = parser.parse(await c.req.text())
  } catch (cause) {
    const [reason] = cause instanceof Error ? cause.message.split('\n') : []
    const detail = parser.name === 'YAML' ? `: ${reason}` : ''
    const code = `invalid_${parser.name.toLowerCase()}`
    throw new RouteError('invalid', code, `The request body is not valid ${parser.name}${detail}.`)
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new RouteError('invalid', 'invalid_value', `The request body must be a ${parser.name} object.`)
  }
  return body as Record<string, unknown>
}

/** /v1/training: runs, their files, and the preview of a run. */
export function trainingRoutes(service: TrainingService, streams: StreamSettings): OpenAPIHono {
  const routes = new OpenAPIHono({ defaultHook })
    .openapi(create, async (c) => c.json(await service.create(await readConfig(c)), 201))
    .openapi(preview, async (c) => c.json(await service.preview(await readConfig(c)), 200))
    .openapi(log, async (c) => {
      const { id } = c.req.valid('param')
      return sendText(c, await service.log(id), c.req.valid('query').tail)
    })
    .openapi(lossPicture, async (c) => {
      const png = await service.lossPicture(c.req.valid('param').id)
      return c.body(new Uint8Array(png), 200, { 'content-type': 'image/png', 'cache-control': 'no-cache' })
    })
    .openapi(checkpoints, async (c) => {
      return c.json(listBody(await service.checkpoints(c.req.valid('param').id)), 200)
    })
    .openapi(resume, async (c) => c.json(await service.resume(c.req.valid('param').id), 200))
    .openapi(remove, async (c) => {
      const { id } = c.req.valid('param')
      await service.delete(id)
      return c.json({ id, object: 'training.run', deleted: true as const }, 200)
    })
  routes.route(
    '/',
    jobRoutes(trainingRun, service, { path, tag: 'Training', noun: 'run', exampleId, streams }),
  )
  return routes
}
