import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import { defaultHook } from './errors.ts'
import { conflict, errors, jsonBody, missing } from './responses.ts'
import type { ModelService } from './services.ts'

const body = z
  .strictObject({
    lora_name: z.string().min(1).max(200).openapi({ example: 'run-3f9a1c07b2de:ckpt-step-100' }),
  })
  .openapi('LoraAdapterRequest', {
    description: "The id of a run or checkpoint. Ids are never paths: vLLM's lora_path is refused.",
  })

const done = {
  description: 'What was done.',
  content: { 'text/plain': { schema: z.string() } },
}
const request = { body: jsonBody(body) }
const tags = ['Models']

const load = createRoute({
  method: 'post',
  path: '/v1/load_lora_adapter',
  tags,
  summary: 'Load an adapter before its first request',
  description: 'With API keys in use, takes one with the scope admin.',
  request,
  responses: { 200: done, ...errors, ...missing, ...conflict },
})

const unload = createRoute({
  method: 'post',
  path: '/v1/unload_lora_adapter',
  tags,
  summary: 'Let an adapter go from memory',
  description:
    'Requests that it answers go on; the next request for it loads it again. With API keys in use, takes one with the scope admin.',
  request,
  responses: { 200: done, ...errors, ...missing },
})

/** Adapters in memory, as vLLM has them, by id. */
export function loraAdapterRoutes(service: ModelService): OpenAPIHono {
  return new OpenAPIHono({ defaultHook })
    .openapi(load, async (c) => {
      const { lora_name: name } = c.req.valid('json')
      await service.loadAdapter(name)
      return c.text(`Success: LoRA adapter '${name}' added successfully.`, 200)
    })
    .openapi(unload, async (c) => {
      const { lora_name: name } = c.req.valid('json')
      await service.unloadAdapter(name)
      return c.text(`Success: LoRA adapter '${name}' removed successfully.`, 200)
    })
}
