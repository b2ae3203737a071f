import type { Context, MiddlewareHandler } from 'hono'
import { RouteError } from './errors.ts'

export interface JsonLimits {
  /** Objects and lists inside each other. */
  depth: number
  /** From the headers to the end of the body, in milliseconds. */
  timeMs: number
}

/** Deep enough for any schema that can be used, shallow enough for recursive code. */
const DEFAULT_LIMITS: JsonLimits = { depth: 128, timeMs: 60_000 }

const isJson = (c: Context) => /\bjson\b/i.test(c.req.header('content-type') ?? '')

/**
 * Reads JSON bodies whole before anything parses them, and refuses those that do not come in time, are no UTF-8 or are
 * nested too deep. What follows reads the same bytes from hono's cache.
 */
export function checkJson({ depth, timeMs }: JsonLimits = DEFAULT_LIMITS): MiddlewareHandler {
  return async (c, next) => {
    checkEncoding(c.req.header('content-encoding'))
    if (isJson(c) && c.req.raw.body !== null) {
      const bytes = new Uint8Array(await inTime(c.req.arrayBuffer(), timeMs))
      checkUtf8(bytes)
      checkDepth(bytes, depth)
    }
    await next()
  }
}

/** A compressed body may grow without bounds; no client of this API sends one. */
function checkEncoding(encoding: string | undefined): void {
  if (encoding === undefined || encoding.toLowerCase() === 'identity') return
  const message = `Content-Encoding ${encoding} is not supported; send the body as it is.`
  throw new RouteError('unsupported_media', 'unsupported_content_encoding', message)
}

async function inTime<T>(body: Promise<T>, timeMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    const message = `The request body did not arrive within ${timeMs / 1000} s.`
    timer = setTimeout(() => reject(new RouteError('request_timeout', 'request_timeout', message)), timeMs)
  })
  try {
    return await Promise.race([body, late])
  } finally {
    clearTimeout(timer)
    body.catch(() => {}) // a body that breaks off later is nobody's error
  }
}

function checkUtf8(bytes: Uint8Array): void {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new RouteError('invalid', 'invalid_utf8', 'The request body is not valid UTF-8.')
  }
}

const QUOTE = 0x22
const BACKSLASH = 0x5c

/** Counts brackets outside of strings; what else is wrong with the text, the parser says. */
function checkDepth(bytes: Uint8Array, limit: number): void {
  let depth = 0
  let inString = false
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at]!
    if (inString) {
      if (byte === BACKSLASH) at++
      else if (byte === QUOTE) inString = false
    } else if (byte === QUOTE) inString = true
    else if (byte === 0x7b || byte === 0x5b) depth++
    else if (byte === 0x7d || byte === 0x5d) depth--
    if (depth > limit) {
      const message = `The request body is nested more than ${limit} levels deep.`
      throw new RouteError('invalid', 'json_too_deep', message)
    }
  }
}
