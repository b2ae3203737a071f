import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** As long as nginx's `lingering_time` and `lingering_timeout`: slow lines get to read their answer, endless bodies end. */
const LINGER_MS = 30_000
const IDLE_MS = 5_000

/**
 * Reads what a client still sends after it was answered, such as the rest of a body that was refused by its size. A
 * connection that is closed over unread bytes is reset, and a client that writes before it reads never sees its answer.
 */
export function readOut(request: IncomingMessage, response: ServerResponse): void {
  // Before Node's own listener, which closes connections that are not kept.
  response.prependOnceListener('finish', () => {
    const { socket } = request
    if (request.readableEnded || request.destroyed) return
    // The body was waited for in vain.
    if (response.statusCode === 408) return socket.destroySoon()
    // Whoever read the beginning would hold the stream back, or hold the rest in memory.
    request.removeAllListeners('data')
    closeAfter(request, socket)
    request.resume()
  })
}

/** Has the connection stay until the request has been read, if Node would close it, and ends it when that takes too long. */
function closeAfter(request: IncomingMessage, socket: Socket): void {
  const close = socket.destroySoon.bind(socket)
  let isClosing = false
  socket.destroySoon = () => {
    isClosing = true
  }
  const timers = [setTimeout(close, LINGER_MS), setTimeout(close, IDLE_MS)]
  for (const timer of timers) timer.unref()
  request.on('data', () => timers[1]!.refresh())
  request.once('close', () => {
    for (const timer of timers) clearTimeout(timer)
    socket.destroySoon = close
    if (isClosing) close()
  })
}
