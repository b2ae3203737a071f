import { z } from '@hono/zod-openapi'
import type { Page } from './services.ts'

/** A JSON answer in the OpenAPI document. */
export const json = <T extends z.ZodType>(schema: T, description: string) => ({
  description,
  content: { 'application/json': { schema } },
})

/** A required JSON body in the OpenAPI document. */
export const jsonBody = <T extends z.ZodType>(schema: T) => ({
  required: true,
  content: { 'application/json': { schema } },
})

const sharedError = { $ref: '#/components/responses/Error' } as const

/** The errors that any request can meet, and `missing` where the path names something. */
export const errors = { 400: sharedError, 401: sharedError, 403: sharedError, default: sharedError }
export const missing = { 404: sharedError }
export const conflict = { 409: sharedError }

/** A body of another type than JSON in the OpenAPI document. */
export const media = (type: string, description: string, format?: string) => ({
  description,
  content: { [type]: { schema: { type: 'string' as const, ...(format ? { format } : {}) } } },
})

/** Path parameter `id`. */
export const idParam = (example: string) => z.object({ id: z.string().min(1).openapi({ example }) })

/** A page in the form of OpenAI's lists. */
export function pageBody<T extends { id: string }>({ data, hasMore }: Page<T>) {
  return {
    object: 'list' as const,
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: hasMore,
  }
}

/** A list that always comes whole. */
export const listBody = <T>(data: T[]) => ({ object: 'list' as const, data })
