import type { z } from '@hono/zod-openapi'
import type { JsonLimits } from './json-body.ts'

/** What createApp is told beside the services. */
export interface AppOptions {
  version: string
  /** Host names beyond localhost, 127.0.0.1 and [::1] that requests may name, without port. */
  allowedHosts: string[]
  /** Origins beyond the server's own that browsers may call from; these also get CORS headers. Empty: CORS is off. */
  allowedOrigins: string[]
  maxJsonBytes: number
  maxUploadBytes: number
  /** How deep and how slow a JSON body may be; the defaults are routes/json-body.ts's. */
  jsonLimits?: JsonLimits
  /** Pause between keep-alive comments on event streams. */
  keepAliveMs: number
  /** Called for each answer, for logs and metrics; `route` is the pattern, never the path. `cause` is an unknown error. */
  onResponse(entry: ResponseEntry): void
  /** Called for an unknown error in the middle of an event stream, whose status has been sent already. */
  onStreamError?(entry: { requestId: string; cause: unknown }): void
  schemas: {
    /** The training configuration; the OpenAPI document describes it, `training.create` enforces it. */
    trainConfig: z.ZodType
  }
}

export interface ResponseEntry {
  requestId: string
  method: string
  route: string
  path: string
  status: number
  durationMs: number
  cause?: unknown
}
