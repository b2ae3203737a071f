import { setTimeout as sleep } from 'node:timers/promises'
import { EngineError } from '../../engine/errors.ts'

export interface FetchOptions {
  headers?: Record<string, string>
  signal?: AbortSignal | undefined
  /** The error for an answer that is none, such as 404. */
  onStatus(response: Response): EngineError
  /** The error for a host that cannot be reached. */
  onUnreachable(cause: unknown): EngineError
}

/** Waits before each further attempt. */
const RETRY_MS = [500, 2000, 5000]
/** A host that says nothing for this long is not there. */
const HEADER_TIMEOUT_MS = 60_000

/**
 * Asks for an address, again where the trouble may pass (429, 5xx, a broken connection). fetch drops an authorization by
 * itself when it is redirected to another origin.
 *
 * @throws EngineError `cancelled`, or what the callbacks return.
 */
export async function fetchRetrying(url: string, options: FetchOptions): Promise<Response> {
  const { headers = {}, signal, onStatus, onUnreachable } = options
  for (let attempt = 0; ; attempt++) {
    if (signal?.aborted) throw stopped(signal.reason)
    // the header's time limit and the caller's wish, in one; the latter holds while the body is read too
    const ending = new AbortController()
    const timer = setTimeout(() => ending.abort(), HEADER_TIMEOUT_MS)
    signal?.addEventListener('abort', () => ending.abort(), { once: true })
    try {
      const response = await fetch(url, { headers, signal: ending.signal })
      if (response.ok) return response
      await response.body?.cancel()
      const isPassing = response.status === 429 || response.status >= 500
      if (!isPassing || attempt === RETRY_MS.length) throw onStatus(response)
    } catch (cause) {
      if (cause instanceof EngineError) throw cause
      if (signal?.aborted) throw stopped(cause)
      if (attempt === RETRY_MS.length || isHopeless(cause)) throw onUnreachable(cause)
    } finally {
      clearTimeout(timer)
    }
    await sleep(RETRY_MS[attempt], undefined, { signal }).catch((cause) => {
      throw stopped(cause)
    })
  }
}

/** Opens a file's content from byte `start` on. A server that ignores ranges answers with the whole: `start` is then 0. */
export async function openFrom(
  url: string,
  start: number,
  options: FetchOptions,
): Promise<{ start: number; body: ReadableStream<Uint8Array> }> {
  const range: Record<string, string> = start > 0 ? { range: `bytes=${start}-` } : {}
  const headers = { ...options.headers, 'accept-encoding': 'identity', ...range }
  const response = await fetchRetrying(url, { ...options, headers })
  if (response.body === null) throw options.onUnreachable(new Error('it came without content'))
  return { start: response.status === 206 ? start : 0, body: response.body }
}

/** Why a fetch failed, in words. */
export function reasonOf(cause: unknown): string {
  const { message, cause: inner } = cause instanceof Error ? cause : new Error(String(cause))
  return inner instanceof Error ? inner.message : message
}

function stopped(cause: unknown): EngineError {
  return new EngineError('cancelled', 'cancelled', 'The download was stopped.', { cause })
}

/** Nobody listens there, or the name does not exist: asking again would not help. */
function isHopeless(error: unknown): boolean {
  const inner = error instanceof Error ? error.cause : undefined
  return (
    inner instanceof Error && 'code' in inner && ['ECONNREFUSED', 'ENOTFOUND'].includes(String(inner.code))
  )
}
