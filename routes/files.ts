import type { Context } from 'hono'
import type { StatusCode } from 'hono/utils/http-status'
import { byteBody } from './byte-body.ts'
import type { StoredBytes, StoredFile } from './services.ts'

/** Something to download whole or in part: bytes under a strong validator. */
export interface Download extends StoredBytes {
  /** Name that a browser saves it under. */
  fileName: string
  /** Strong ETag with its quotes. */
  etag: string
  contentType: string
  /** SHA-256 of the whole, where it is known. */
  sha256?: string
  /** Keeps the content from being deleted until the returned function is called. */
  hold?: () => Promise<() => void>
}

/** One published file; its digest is its validator. */
export const fileDownload = (file: StoredFile): Download => ({
  size: file.size,
  read: (start, end) => file.read(start, end),
  fileName: file.path.split('/').at(-1) ?? file.path,
  etag: `"${file.sha256}"`,
  contentType: 'application/octet-stream',
  sha256: file.sha256,
})

/** The archive of one export. Its validator digests what it is made of, since its own digest would need reading it. */
export const archiveDownload = (
  id: string,
  archive: StoredBytes & { digest: string },
  hold: () => Promise<() => void>,
): Download => ({
  hold,
  size: archive.size,
  read: (start, end) => archive.read(start, end),
  fileName: `${id}.tar`,
  etag: `"${archive.digest}"`,
  contentType: 'application/x-tar',
})

interface ByteRange {
  start: number
  end: number
}

/**
 * Reads a Range header (RFC 9110, 14.2) for content of `size` bytes. Undefined means the whole: no header, another unit,
 * several ranges or a malformed one, all of which a server may ignore.
 */
export function parseRange(
  header: string | undefined,
  size: number,
): ByteRange | 'unsatisfiable' | undefined {
  const match = /^bytes=(\d*)-(\d*)$/i.exec(header?.replaceAll(' ', '') ?? '')
  if (!match || (match[1] === '' && match[2] === '')) return undefined
  if (match[1] === '') {
    const length = Math.min(Number(match[2]), size)
    return length === 0 ? 'unsatisfiable' : { start: size - length, end: size - 1 }
  }
  const start = Number(match[1])
  const last = match[2] === '' ? size - 1 : Number(match[2])
  if (match[2] !== '' && last < start) return undefined
  return start >= size ? 'unsatisfiable' : { start, end: Math.min(last, size - 1) }
}

/** If-None-Match compares weakly: a `W/` in front doesn't matter. */
function matchesAny(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false
  return header.trim() === '*' || header.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag)
}

/** If-Match compares strongly: a weak validator matches nothing (RFC 9110, 13.1.1). */
function matchesExactly(header: string, etag: string): boolean {
  return header.trim() === '*' || header.split(',').some((tag) => tag.trim() === etag)
}

/** Content-Disposition (RFC 6266): an ASCII name for old readers and the exact one in `filename*`. */
export function attachment(fileName: string): string {
  const ascii = fileName.replace(/[^\x20-\x7e]|["\\%]/g, '_')
  const encoded = encodeURIComponent(fileName).replace(
    /['()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  )
  return `attachment; filename="${ascii}"; filename*=UTF-8''${encoded}`
}

function headersOf(download: Download): Record<string, string> {
  const digest = download.sha256 && Buffer.from(download.sha256, 'hex').toString('base64')
  return {
    etag: download.etag,
    'accept-ranges': 'bytes',
    'cache-control': 'private, no-cache, no-transform',
    'content-type': download.contentType,
    'content-disposition': attachment(download.fileName),
    ...(digest ? { 'repr-digest': `sha-256=:${digest}:` } : {}),
  }
}

/** The bytes of a range as a response's body. `release` is called once, whether the body ends, fails or is left. */
async function openBody(
  bytes: StoredBytes,
  { start, end }: ByteRange,
  release = () => {},
): Promise<ReadableStream<Uint8Array>> {
  return byteBody(await bytes.read(start, end), end - start + 1, release)
}

async function openHeld(download: Download, part: ByteRange): Promise<ReadableStream<Uint8Array>> {
  const release = await download.hold?.()
  try {
    return await openBody(download, part, release)
  } catch (error) {
    release?.()
    throw error
  }
}

/** hono types a body and no body as two calls. */
const respond = (
  c: Context,
  body: ReadableStream<Uint8Array> | null,
  status: 200 | 206,
  headers: Record<string, string>,
) => (body === null ? c.body(null, status as StatusCode, headers) : c.body(body, status, headers))

/** Answers GET and HEAD for a download: 200, 206, 304, 412 or 416. Bytes are read only for GET, and only the asked ones. */
export async function sendDownload(c: Context, download: Download): Promise<Response> {
  const headers = headersOf(download)
  const { size, etag } = download
  const ifMatch = c.req.header('if-match')
  if (ifMatch !== undefined && !matchesExactly(ifMatch, etag)) return c.body(null, 412, { etag })
  if (matchesAny(c.req.header('if-none-match'), etag)) {
    return c.body(null, 304, { etag, 'cache-control': headers['cache-control'] ?? '' })
  }
  const isHead = c.req.method === 'HEAD' // for which Range means nothing
  const ifRange = c.req.header('if-range')
  const mayBePart = !isHead && (ifRange === undefined || ifRange === etag)
  const range = mayBePart ? parseRange(c.req.header('range'), size) : undefined
  if (range === 'unsatisfiable') {
    return c.body(null, 416, { 'content-range': `bytes */${size}`, 'accept-ranges': 'bytes', etag })
  }
  const part = range ?? { start: 0, end: size - 1 }
  const length = part.end - part.start + 1
  const body = isHead || size === 0 ? null : await openHeld(download, part)
  const all = { ...headers, 'content-length': String(length) }
  if (!range) return respond(c, body, 200, all)
  return respond(c, body, 206, { ...all, 'content-range': `bytes ${part.start}-${part.end}/${size}` })
}

/** The first byte at or after `start` that begins a UTF-8 character. */
async function characterStart(bytes: StoredBytes, start: number): Promise<number> {
  let at = start
  for await (const chunk of await bytes.read(start, Math.min(start + 3, bytes.size - 1))) {
    for (const byte of chunk) {
      if ((byte & 0xc0) !== 0x80) return at
      at += 1
    }
  }
  return at
}

/** Answers with UTF-8 text, or with about its last `tail` bytes. */
export async function sendText(c: Context, text: StoredBytes, tail: number | undefined): Promise<Response> {
  const cut = tail === undefined || tail >= text.size ? 0 : await characterStart(text, text.size - tail)
  const headers = {
    'content-type': 'text/plain; charset=utf-8',
    'content-length': String(text.size - cut),
    'cache-control': 'no-cache',
  }
  const isEmpty = text.size === cut || c.req.method === 'HEAD'
  const body = isEmpty ? null : await openBody(text, { start: cut, end: text.size - 1 })
  return respond(c, body, 200, headers)
}
