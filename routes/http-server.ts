import { createServer, type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { getRequestListener, type Http2Bindings, type HttpBindings } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import type { OpenAPIHono } from '@hono/zod-openapi'
import { writeDirectly } from './byte-body.ts'
import { RouteError, toHttpError } from './errors.ts'
import { readOut } from './read-out.ts'

/** A large upload over a slow line is no attack. */
const REQUEST_TIMEOUT_MS = 60 * 60 * 1000

/**
 * An HTTP server around an application. What cannot be read as HTTP is answered in the envelope too, and closed.
 *
 * @param onBodyError hears what went wrong with a file after its headers were sent.
 */
export function createHttpServer(
  app: Pick<OpenAPIHono, 'fetch'>,
  onBodyError: (error: unknown) => void = () => {},
): Server {
  const server = createServer(
    {
      requestTimeout: REQUEST_TIMEOUT_MS,
      // Probes find peers that have vanished without a word.
      keepAlive: true,
      keepAliveInitialDelay: 60_000,
      // Node would refuse it without a word; the listener below has one.
      requireHostHeader: false,
    },
    getRequestListener(answerOf(app, onBodyError), {
      errorHandler: answerUnreadableRequest,
      // It would close the connection after 64 MiB or half a second.
      autoCleanupIncoming: false,
    }),
  )
  return server
    .on('request', readOut)
    .on('clientError', (error, socket) => answerBrokenRequest(error, socket as Socket))
}

/** Answers as the application does, with the bytes of files written straight to the connection. */
function answerOf(app: Pick<OpenAPIHono, 'fetch'>, onBodyError: (error: unknown) => void) {
  return async (request: Request, bindings: HttpBindings | Http2Bindings): Promise<Response> => {
    const response = await app.fetch(request, bindings)
    try {
      const isWritten = await writeDirectly(response, bindings.outgoing as ServerResponse)
      return isWritten ? RESPONSE_ALREADY_SENT : response
    } catch (error) {
      onBodyError(error)
      return RESPONSE_ALREADY_SENT
    }
  }
}

/** For requests so malformed (an impossible Host, say) that they never reach the application. */
function answerUnreadableRequest(): Response {
  const { status, body } = toHttpError(
    new RouteError('invalid', 'malformed_request', 'The request line or its Host header is malformed.'),
  )
  return Response.json(body, { status })
}

/** For bytes that are no HTTP, by the code of the parser's error. */
function answerBrokenRequest(error: NodeJS.ErrnoException, socket: Socket): void {
  // A peer that is gone hears nothing, and into an answer that has begun no other one can be written.
  if (!socket.writable || error.code === 'ECONNRESET' || socket.bytesWritten > 0) {
    socket.destroy()
    return
  }
  const { status, body } = toHttpError(brokenRequest(error.code))
  const text = JSON.stringify(body)
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    'connection: close',
    'content-type: application/json',
    `content-length: ${Buffer.byteLength(text)}`,
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${text}`)
}

function brokenRequest(code: string | undefined): RouteError {
  if (code === 'HPE_HEADER_OVERFLOW') {
    return new RouteError('headers_too_large', 'headers_too_large', 'The URL and headers are too large.')
  }
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return new RouteError('request_timeout', 'request_timeout', 'The request did not arrive in time.')
  }
  return new RouteError('invalid', 'malformed_request', 'The request is not valid HTTP/1.1.')
}
