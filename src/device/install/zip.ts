import { createReadStream, createWriteStream } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { basename } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createInflateRaw } from 'node:zlib'
import { EngineError } from '../../../engine/errors.ts'

/** A file in an archive. */
interface Entry {
  name: string
  method: number
  compressedBytes: number
  bytes: number
  /** Where its local header begins. */
  offset: number
}

// Signatures and lengths of APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.16
const END = { signature: 0x06054b50, bytes: 22, longestComment: 0xffff }
const CENTRAL = { signature: 0x02014b50, bytes: 46 }
const LOCAL = { signature: 0x04034b50, bytes: 30 }
const STORED = 0
const DEFLATED = 8
/** A field that says that the number stands in the 64-bit extension, which no archive of ours needs. */
const IN_ZIP64 = 0xffffffff
/** More is no package. */
const MAX_DIRECTORY_BYTES = 64 << 20

/**
 * Takes single files out of a zip (a wheel, a NuGet package) by their base names; paths in the archive decide nothing.
 *
 * @param wanted where each file is to be written, by its base name
 * @throws EngineError `invalid` for a broken archive and for one without a wanted file, before anything is written.
 */
export async function extractFromZip(
  file: string,
  wanted: ReadonlyMap<string, string>,
  signal?: AbortSignal,
): Promise<void> {
  const handle = await open(file)
  try {
    const entries = await readDirectory(handle, file)
    const found = [...wanted].map(([name, target]) => ({ entry: pick(entries, name, file), target }))
    for (const { entry, target } of found) await extract(handle, file, entry, target, signal)
  } finally {
    await handle.close()
  }
}

function pick(entries: Entry[], name: string, file: string): Entry {
  const entry = entries.find((candidate) => basename(candidate.name) === name)
  if (entry === undefined) throw broken(file, `it holds no ${name}`, 'archive_without_library')
  return entry
}

async function readDirectory(handle: FileHandle, file: string): Promise<Entry[]> {
  const { size } = await handle.stat()
  const tail = await read(handle, Math.max(0, size - END.bytes - END.longestComment), size, file)
  let at = tail.length - END.bytes
  while (at >= 0 && tail.readUInt32LE(at) !== END.signature) at--
  if (at < 0) throw broken(file, 'it is no zip archive')
  const bytes = tail.readUInt32LE(at + 12)
  const start = tail.readUInt32LE(at + 16)
  if (start === IN_ZIP64 || bytes > MAX_DIRECTORY_BYTES || start + bytes > size)
    throw broken(file, 'its directory cannot be read')
  return readEntries(await read(handle, start, start + bytes, file), file)
}

function readEntries(directory: Buffer, file: string): Entry[] {
  const entries: Entry[] = []
  for (let at = 0; at < directory.length; ) {
    if (at + CENTRAL.bytes > directory.length || directory.readUInt32LE(at) !== CENTRAL.signature)
      throw broken(file, 'its directory is damaged')
    const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((field) =>
      directory.readUInt16LE(at + field),
    )
    const nameAt = at + CENTRAL.bytes
    entries.push({
      name: directory.toString('utf8', nameAt, nameAt + nameBytes!),
      method: directory.readUInt16LE(at + 10),
      compressedBytes: directory.readUInt32LE(at + 20),
      bytes: directory.readUInt32LE(at + 24),
      offset: directory.readUInt32LE(at + 42),
    })
    at = nameAt + nameBytes! + extraBytes! + commentBytes!
  }
  return entries
}

async function extract(
  handle: FileHandle,
  file: string,
  entry: Entry,
  target: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const header = await read(handle, entry.offset, entry.offset + LOCAL.bytes, file)
  if (header.readUInt32LE(0) !== LOCAL.signature)
    throw broken(file, `${entry.name} is not where it should be`)
  if (entry.method !== STORED && entry.method !== DEFLATED)
    throw broken(file, `${entry.name} is packed by method ${entry.method}, which is not known`)
  const start = entry.offset + LOCAL.bytes + header.readUInt16LE(26) + header.readUInt16LE(28)
  const end = start + entry.compressedBytes
  if (end > (await handle.stat()).size) throw broken(file, `${entry.name} is cut off`)
  const content =
    entry.compressedBytes === 0 ? Readable.from([]) : createReadStream(file, { start, end: end - 1 })
  const unpack = entry.method === DEFLATED ? createInflateRaw() : new PassThrough()
  let written = 0
  const limit = async function* (chunks: AsyncIterable<Buffer>) {
    for await (const chunk of chunks) {
      written += chunk.length
      if (written > entry.bytes) throw broken(file, `${entry.name} is longer than it says`)
      yield chunk
    }
  }
  try {
    await pipeline(content, unpack, limit, createWriteStream(target), { signal })
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && String(cause.code).startsWith('Z_'))
      throw broken(file, `${entry.name} cannot be unpacked (${cause.message})`)
    throw cause
  }
  if (written !== entry.bytes) throw broken(file, `${entry.name} is shorter than it says`)
}

async function read(handle: FileHandle, start: number, end: number, file: string): Promise<Buffer> {
  const buffer = Buffer.alloc(end - start)
  const { bytesRead } = await handle.read(buffer, 0, buffer.length, start)
  if (bytesRead < buffer.length) throw broken(file, 'it is cut off')
  return buffer
}

function broken(file: string, problem: string, code = 'archive_broken'): EngineError {
  return new EngineError('invalid', code, `${basename(file)} cannot be used: ${problem}.`)
}
