import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { defaultHook, RouteError } from './errors.ts'
import type { EmbeddingService } from './generation-services.ts'
import { errors, json, jsonBody, missing } from './responses.ts'
import { embeddingRequest, embeddings } from './schemas/text.ts'
import { followRequest } from './sse.ts'

const create = createRoute({
  method: 'post',
  path: '/v1/embeddings',
  tags: ['Text'],
  summary: 'Turn texts into vectors',
  description: 'The mean of the last hidden states, normalised to length 1.',
  request: { body: jsonBody(embeddingRequest) },
  responses: { 200: json(embeddings, 'One vector for each input.'), ...errors, ...missing },
})

function toInputs(input: string | string[] | number[] | number[][]): (string | number[])[] {
  if (typeof input === 'string') return [input]
  return typeof input[0] === 'number' ? [input as number[]] : (input as (string | number[])[])
}

/** Little-endian float32 in base64, as numbers. */
function toNumbers(vector: string): number[] {
  const bytes = Buffer.from(vector, 'base64')
  return Array.from({ length: bytes.length / 4 }, (_, index) => bytes.readFloatLE(4 * index))
}

/** /v1/embeddings; OpenAI's clients ask for base64 by themselves. */
export function embeddingRoutes(service: EmbeddingService): OpenAPIHono {
  return new OpenAPIHono({ defaultHook }).openapi(create, async (c) => {
    const { model, input, encoding_format, dimensions } = c.req.valid('json')
    const request = { model, inputs: toInputs(input) }
    const { vectors, promptTokens } = await service.embed(request, followRequest(c).signal)
    const size = Buffer.byteLength(vectors[0]!, 'base64') / 4
    if (dimensions != null && dimensions !== size) {
      const message = `dimensions is ${dimensions}; ${model} makes vectors of ${size} numbers and no other.`
      throw new RouteError('invalid', 'unsupported_dimensions', message, 'dimensions')
    }
    const data = vectors.map((vector, index) => ({
      object: 'embedding' as const,
      index,
      embedding: encoding_format === 'base64' ? vector : toNumbers(vector),
    }))
    const usage = { prompt_tokens: promptTokens, total_tokens: promptTokens }
    return c.json({ object: 'list' as const, model, data, usage }, 200)
  })
}
