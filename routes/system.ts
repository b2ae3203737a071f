import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import { defaultHook } from './errors.ts'
import { json, media } from './responses.ts'
import type { Health, SystemService } from './services.ts'

const health = createRoute({
  method: 'get',
  path: '/health',
  tags: ['System'],
  summary: 'Whether the server takes work',
  description:
    'Needs no API key. 503 while models are preloaded, when one of them could not be, and while the server drains.',
  security: [],
  responses: {
    200: json(
      z
        .object({
          status: z.literal('ok'),
          version: z.string(),
          device: z.string().openapi({
            description:
              "What runs and models compute on unless they ask for another: cpu, webgpu, cuda or cuda:N; 'auto' while self-tests run.",
            example: 'cpu',
          }),
          device_reason: z
            .string()
            .openapi({ description: 'Why that device, and what kept better ones away.' }),
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

/** Without details, as this answer goes to everybody. */
function whyNot(status: Exclude<Health['status'], 'ok'>, failed: Health['failedModels']): string {
  if (status === 'starting') return 'The server is starting.'
  if (status === 'draining') return 'The server is shutting down.'
  const models = failed.map(({ id, code }) => `${id} (${code})`).join(', ')
  return `Could not be loaded at the start: ${models}. The log says why.`
}

/** /health and /metrics. */
export function systemRoutes(service: SystemService): OpenAPIHono {
  return new OpenAPIHono({ defaultHook })
    .openapi(health, async (c) => {
      const { status, version, device, deviceReason, uptimeSeconds, failedModels } = await service.health()
      if (status === 'ok') {
        const body = { status, version, device, device_reason: deviceReason, uptime_seconds: uptimeSeconds }
        return c.json(body, 200)
      }
      const message = whyNot(status, failedModels)
      const error = { message, type: 'unavailable_error', param: null, code: status }
      return c.json({ error }, 503, { 'retry-after': '5' })
    })
    .openapi(metrics, async (c) => {
      const { contentType, body } = await service.metrics()
      return c.body(body, 200, { 'content-type': contentType })
    })
}
