import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { defaultHook, RouteError } from './errors.ts'
import { conflict, errors, idParam, json, media, missing, pageBody } from './responses.ts'
import { pageOf, pageQuery } from './schemas/common.ts'
import type { JobEvent, JobStatus } from './schemas/jobs.ts'
import type { Jobs } from './services.ts'
import { errorFrame, eventFrame, followRequest, type StreamSettings, sendEvents } from './sse.ts'

interface JobResource {
  id: string
  status: JobStatus
}

interface JobRouteSettings {
  /** Where the resource lies, for example `/v1/merges`. */
  path: string
  tag: string
  /** What one of them is called in descriptions. */
  noun: string
  exampleId: string
  streams: StreamSettings
}

const eventsQuery = z.object({
  after: z.coerce.number().int().min(0).optional().openapi({
    type: 'integer',
    description: 'Id of the last event already seen; the header Last-Event-ID goes before it.',
  }),
})

/** The id after which a reader wants to go on: Last-Event-ID, which a reconnecting EventSource sends, else `after`. */
function lastSeen(c: Context, after: number | undefined): number {
  const header = c.req.header('last-event-id')
  if (header === undefined || header === '') return after ?? 0
  if (!/^\d{1,15}$/.test(header)) {
    throw new RouteError(
      'invalid',
      'invalid_value',
      'Last-Event-ID must be the id of an event.',
      'Last-Event-ID',
    )
  }
  return Number(header)
}

async function* framesOf(
  events: AsyncIterable<JobEvent>,
  toErrorFrame: (error: unknown) => string,
): AsyncGenerator<string> {
  try {
    for await (const event of events) yield eventFrame(event)
  } catch (error) {
    yield `event: error\n${toErrorFrame(error)}`
  }
}

const atRest = (status: JobStatus) => status === 'succeeded' || status === 'failed' || status === 'cancelled'

/**
 * Streams a job's events. A finished job whose events were all seen answers 204 to a reconnecting reader, which tells an
 * EventSource to stop reconnecting.
 */
async function streamJobEvents<T extends JobResource>(
  c: Context,
  service: Jobs<T>,
  id: string,
  after: number | undefined,
  streams: StreamSettings,
): Promise<Response> {
  const start = lastSeen(c, after)
  const job = await service.get(id)
  const abort = followRequest(c)
  const frames = framesOf(service.events(id, start, abort.signal), (error) => errorFrame(c, error, streams))
  if (c.req.header('last-event-id') === undefined || !atRest(job.status)) {
    return sendEvents(c, frames, abort, streams.keepAliveMs)
  }
  const first = await frames.next()
  if (first.done) return c.body(null, 204)
  return sendEvents(c, prepend(first.value, frames), abort, streams.keepAliveMs)
}

async function* prepend(first: string, rest: AsyncGenerator<string>): AsyncGenerator<string> {
  yield first
  yield* rest
}

/** The routes that every kind of job has: list, get, events, cancel. */
export function jobRoutes<T extends JobResource, S extends z.ZodType<T>>(
  schema: S,
  service: Jobs<T>,
  { path, tag, noun, exampleId, streams }: JobRouteSettings,
): OpenAPIHono {
  const tags = [tag]
  const params = idParam(exampleId)
  const page: z.ZodType = pageOf(schema)
  const one: z.ZodType = schema
  const list = createRoute({
    method: 'get',
    path,
    tags,
    summary: `List ${noun}s, newest first`,
    request: { query: pageQuery },
    responses: { 200: json(page, 'One page.'), ...errors },
  })
  const get = createRoute({
    method: 'get',
    path: `${path}/{id}`,
    tags,
    summary: `Get one ${noun}`,
    request: { params },
    responses: { 200: json(one, `The ${noun}.`), ...errors, ...missing },
  })
  const events = createRoute({
    method: 'get',
    path: `${path}/{id}/events`,
    tags,
    summary: `Watch one ${noun}`,
    description:
      'Server-sent events: the stored ones first, then live ones until the job is finished. Each `data` is a JobEvent.',
    request: { params, query: eventsQuery },
    responses: {
      200: media('text/event-stream', 'Events, each with an id that increases.'),
      204: { description: 'Nothing follows the event named by Last-Event-ID.' },
      ...errors,
      ...missing,
    },
  })
  const cancel = createRoute({
    method: 'post',
    path: `${path}/{id}/cancel`,
    tags,
    summary: `Cancel one ${noun}`,
    request: { params },
    responses: { 200: json(one, `The ${noun} as it stands.`), ...errors, ...missing, ...conflict },
  })
  return new OpenAPIHono({ defaultHook })
    .openapi(list, async (c) => c.json(pageBody(await service.list(c.req.valid('query'))), 200))
    .openapi(get, async (c) => c.json(await service.get(c.req.valid('param').id), 200))
    .openapi(events, (c) => {
      const { id } = c.req.valid('param')
      return streamJobEvents(c, service, id, c.req.valid('query').after, streams)
    })
    .openapi(cancel, async (c) => c.json(await service.cancel(c.req.valid('param').id), 200))
}
