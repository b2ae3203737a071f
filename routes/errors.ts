import type { Hook } from '@hono/zod-openapi'
import type { Context, Env } from 'hono'
import { HTTPException } from 'hono/http-exception'
import type { ErrorEnvelope } from './schemas/common.ts'
import { describeIssues, type Issue } from './validation.ts'

/** What the application and the routes throw on purpose; recognised by its shape, wherever its class lives. */
export interface Failure {
  kind: string
  code: string
  message: string
  param?: string | undefined
}

/** The routes' own failures: those about HTTP itself, and wrong requests found before the application is asked. */
export class RouteError extends Error implements Failure {
  override readonly name = 'RouteError'
  readonly kind:
    | 'invalid'
    | 'unauthorized'
    | 'forbidden'
    | 'not_found'
    | 'method_not_allowed'
    | 'payload_too_large'
    | 'unsupported_media'
    | 'request_timeout'
    | 'headers_too_large'
  readonly code: string
  readonly param: string | undefined

  constructor(kind: RouteError['kind'], code: string, message: string, param?: string) {
    super(message)
    this.kind = kind
    this.code = code
    this.param = param
  }
}

interface HttpError {
  status: 400 | 401 | 403 | 404 | 405 | 408 | 409 | 413 | 415 | 431 | 500 | 503
  body: ErrorEnvelope
  headers: Record<string, string>
  /** False for what nobody threw on purpose: its cause belongs in the log, not in the answer. */
  expected: boolean
}

const retryAfterSeconds = 5

/** Kind to HTTP, the only place where this is decided. Clients retry 409 by themselves unless they are told not to. */
const byKind: Record<
  string,
  { status: HttpError['status']; type: string; headers?: Record<string, string> }
> = {
  invalid: { status: 400, type: 'invalid_request_error' },
  unsupported: { status: 400, type: 'invalid_request_error' },
  refused: { status: 400, type: 'invalid_request_error' },
  too_large: { status: 400, type: 'invalid_request_error' },
  unauthorized: { status: 401, type: 'authentication_error', headers: { 'www-authenticate': 'Bearer' } },
  forbidden: { status: 403, type: 'permission_error' },
  not_found: { status: 404, type: 'invalid_request_error' },
  method_not_allowed: { status: 405, type: 'invalid_request_error' },
  conflict: { status: 409, type: 'conflict_error', headers: { 'x-should-retry': 'false' } },
  cancelled: { status: 409, type: 'conflict_error', headers: { 'x-should-retry': 'false' } },
  request_timeout: { status: 408, type: 'invalid_request_error', headers: { connection: 'close' } },
  payload_too_large: { status: 413, type: 'invalid_request_error' },
  headers_too_large: { status: 431, type: 'invalid_request_error' },
  unsupported_media: { status: 415, type: 'invalid_request_error' },
  unavailable: {
    status: 503,
    type: 'unavailable_error',
    headers: { 'retry-after': String(retryAfterSeconds) },
  },
}

const isFailure = (error: unknown): error is Failure =>
  error instanceof Error &&
  typeof (error as { kind?: unknown }).kind === 'string' &&
  typeof (error as { code?: unknown }).code === 'string'

const isZodError = (error: unknown): error is { issues: Issue[] } =>
  error instanceof Error && Array.isArray((error as { issues?: unknown }).issues)

/** Turns hono's own refusals (unreadable JSON, wrong media type, body limit) into ours. */
function fromHttpException(error: HTTPException): Failure | undefined {
  switch (error.status) {
    case 400:
      return new RouteError('invalid', 'invalid_json', 'The request body is not valid JSON.')
    case 413:
      return new RouteError('payload_too_large', 'payload_too_large', 'The request body is too large.')
    case 415:
      return new RouteError(
        'unsupported_media',
        'unsupported_media_type',
        'Send the body with the header `Content-Type: application/json`.',
      )
    default:
      return undefined
  }
}

function toFailure(error: unknown): Failure | undefined {
  if (isFailure(error)) return error
  if (isZodError(error)) return { kind: 'invalid', ...describeIssues(error.issues) }
  return error instanceof HTTPException ? fromHttpException(error) : undefined
}

/** Maps whatever was thrown to a status, headers and OpenAI's envelope. What is not known becomes a generic 500. */
export function toHttpError(error: unknown): HttpError {
  const failure = toFailure(error)
  const mapping = failure && byKind[failure.kind]
  if (!failure || !mapping) {
    const message = 'The server failed to handle this request. Its log has the cause.'
    const body = { error: { message, type: 'server_error', param: null, code: 'internal_error' } }
    return { status: 500, body, headers: {}, expected: false }
  }
  const { message, code, param } = failure
  return {
    status: mapping.status,
    body: { error: { message, type: mapping.type, param: param ?? null, code } },
    headers: mapping.headers ?? {},
    expected: true,
  }
}

const clientGone = () =>
  new RouteError('invalid', 'request_aborted', 'The client went away before the request was read.')

/** Whether the error is only that the client went away while its request was read. */
export function isClientGone(error: Error, c: Context): boolean {
  return c.req.raw.signal.aborted || ('code' in error && error.code === 'ECONNRESET')
}

/** The application's `onError`: answers in the envelope. `c.error` keeps the cause for the log. */
export function answerError(error: Error, c: Context): Response {
  const known = toHttpError(error)
  const { status, body, headers } =
    known.expected || !isClientGone(error, c) ? known : toHttpError(clientGone())
  return c.json(body, status, headers)
}

/** Refuses a request whose parameters or body don't match their schema. */
export const defaultHook: Hook<unknown, Env, string, Response | undefined> = (result) => {
  if (!result.success) throw result.error
  return undefined
}
