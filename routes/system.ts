import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import { defaultHook } from './errors.ts'
import { json, media } from './responses.ts'
import type { SystemService } from './services.ts'

const health = createRoute({
  method: 'get',
  path: '/health',
  tags: ['System'],
  summary: 'Whether the server takes work',
  description: 'Needs no API key.',
  security: [],
  responses: {
    200: json(
      z
        .object({
          status: z.literal('ok'),
          version: z.string(),
          device: z.string(),
          uptime_seconds: z.number(),
        })
        .openapi('Health'),
      'It does.',
    ),
    503: { $ref: '#/components/responses/Error' },
  },
})

const metrics = createRoute({
  method: 'get',
  path: '/metrics',
  tags: ['System'],
  summary: 'Metrics for Prometheus',
  responses: { 200: media('text/plain', 'The text format of Prometheus.') },
})

/** /health and /metrics. */
export function systemRoutes(service: SystemService): OpenAPIHono {
  return new OpenAPIHono({ defaultHook })
    .openapi(health, async (c) => {
      const { status, version, device, uptimeSeconds } = await service.health()
      if (status === 'ok') return c.json({ status, version, device, uptime_seconds: uptimeSeconds }, 200)
      const message = status === 'starting' ? 'The server is starting.' : 'The server is shutting down.'
      const error = { message, type: 'unavailable_error', param: null, code: status }
      return c.json({ error }, 503, { 'retry-after': '5' })
    })
    .openapi(metrics, async (c) => {
      const { contentType, body } = await service.metrics()
      return c.body(body, 200, { 'content-type': contentType })
    })
}
