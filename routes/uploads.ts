import { PassThrough, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { ReadableStream as NodeReadableStream } from 'node:stream/web'
import { Busboy } from '@fastify/busboy'
import type { z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { RouteError } from './errors.ts'
import type { StagedUpload } from './services.ts'

const maxFieldBytes = 64 * 1024
const maxFields = 10
/** Room for the fields and the multipart framing in a request whose length is announced. */
const framingBytes = maxFields * maxFieldBytes

type Stage = (fileName: string, content: Readable) => Promise<StagedUpload>

const tooLarge = (maxBytes: number) =>
  new RouteError(
    'payload_too_large',
    'payload_too_large',
    `The file is larger than the limit of ${maxBytes} bytes.`,
    'file',
  )

const malformed = (cause: unknown) =>
  Object.assign(
    new RouteError('invalid', 'invalid_multipart', 'The multipart body ends early or is malformed.'),
    { cause },
  )

function newParser(c: Context, maxBytes: number) {
  const type = c.req.header('content-type') ?? ''
  if (!/^multipart\/form-data\s*;/i.test(type)) {
    const message = 'Send the file as multipart/form-data.'
    throw new RouteError('unsupported_media', 'unsupported_media_type', message)
  }
  try {
    return new Busboy({
      headers: { 'content-type': type },
      limits: { fileSize: maxBytes, files: 1, fields: maxFields, fieldSize: maxFieldBytes, headerPairs: 20 },
    })
  } catch {
    throw new RouteError('invalid', 'invalid_multipart', 'The multipart boundary is missing.')
  }
}

/** The value of a form field: columns and tags come as JSON text, the others as they are. */
function fieldValue(name: string, value: string): unknown {
  if (name !== 'columns' && name !== 'tags') return value
  try {
    return JSON.parse(value)
  } catch {
    throw new RouteError('invalid', 'invalid_json', `${name}: must be a JSON object`, name)
  }
}

interface Received {
  fields: Map<string, unknown>
  staged: Promise<StagedUpload> | undefined
}

/**
 * Reads the parts in whatever order they come, handing the file on as it arrives. The first thing that goes wrong ends the
 * reading and the file's stream, and is what the returned promise rejects with.
 */
async function readParts(c: Context, maxBytes: number, stage: Stage, received: Received): Promise<void> {
  const parser = newParser(c, maxBytes)
  const content = new PassThrough()
  let fail: (error: unknown) => void = () => {}
  const failed = new Promise<never>((_resolve, reject) => {
    fail = (error) => {
      content.destroy(error as Error)
      parser.destroy()
      reject(error)
    }
  })
  content.on('error', () => {}) // whoever stages it hears of it, and `failed` tells us
  const refuse = (message: string, param?: string) =>
    fail(new RouteError('invalid', 'invalid_multipart', message, param))

  parser.on('field', (name, value, _nameCut, valueCut) => {
    if (valueCut) return refuse(`${name}: longer than ${maxFieldBytes} bytes`, name)
    if (received.fields.has(name)) return refuse(`${name}: given twice`, name)
    try {
      received.fields.set(name, fieldValue(name, value))
    } catch (error) {
      fail(error)
    }
  })
  parser.on('file', (name, file, fileName) => {
    file.on('limit', () => fail(tooLarge(maxBytes)))
    file.on('error', (cause) => fail(malformed(cause)))
    if (name !== 'file') return refuse(`${name}: unknown file field, the file belongs in "file"`, name)
    received.staged = stage(fileName ?? '', content)
    received.staged.catch(fail)
    file.pipe(content)
  })
  parser.on('filesLimit', () => refuse('file: only one file is taken at a time', 'file'))
  parser.on('fieldsLimit', () => refuse(`more than ${maxFields} fields`))

  const body = c.req.raw.body
  const source = body ? Readable.fromWeb(body as NodeReadableStream) : Readable.from([])
  const parsed = pipeline(source, parser).catch((cause) => fail(malformed(cause)))
  await Promise.race([failed, parsed.then(() => received.staged)])
}

/**
 * Receives a multipart form with one file, which `stage` writes to disk as it arrives. When anything is wrong nothing stays
 * staged. Ends with the fields checked against `schema` and the file staged; the caller discards it in the end.
 */
export async function receiveUpload<T extends z.ZodType>(
  c: Context,
  maxBytes: number,
  schema: T,
  stage: Stage,
): Promise<{ fields: z.infer<T>; upload: StagedUpload }> {
  const announced = Number(c.req.header('content-length') ?? 0)
  if (announced > maxBytes + framingBytes) throw tooLarge(maxBytes)
  const received: Received = { fields: new Map(), staged: undefined }
  try {
    await readParts(c, maxBytes, stage, received)
    const fields = await schema.parseAsync(Object.fromEntries(received.fields))
    const upload = await received.staged
    if (!upload) throw new RouteError('invalid', 'missing_field', 'file: a file is needed', 'file')
    return { fields, upload }
  } catch (error) {
    await received.staged?.then(
      (upload) => upload.discard(),
      () => {}, // staging itself failed and has cleaned up
    )
    throw error
  }
}
