import { createHash } from 'node:crypto'
import type { ExportFile } from './schemas/artifacts.ts'
import type { StoredBytes, StoredFile } from './services.ts'

const blockSize = 512
const paddingOf = (size: number) => (blockSize - (size % blockSize)) % blockSize

// Written here, not with a library: ranges need each header's bytes before the contents, which stream packers don't give.

/** A stretch of the archive that is either made here or read from a file. */
interface Segment {
  size: number
  read(start: number, end: number): Promise<AsyncIterable<Uint8Array> | Uint8Array[]>
}

const bytesSegment = (bytes: Uint8Array): Segment => ({
  size: bytes.length,
  read: async (start, end) => [bytes.subarray(start, end + 1)],
})

/** One header block (ustar). Time, owner and mode are fixed, so that the same export always makes the same archive. */
function headerBlock(name: string, size: number, type: 'file' | 'pax'): Buffer {
  const block = Buffer.alloc(blockSize)
  const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, '0')}\0`
  block.write(name, 0, 100, 'latin1')
  block.write(octal(0o644, 7), 100)
  block.write(octal(0, 7), 108) // owner
  block.write(octal(0, 7), 116) // group
  block.write(octal(size, 11), 124)
  block.write(octal(0, 11), 136) // time
  block.write(' '.repeat(8), 148) // the checksum counts its own field as spaces
  block.write(type === 'pax' ? 'x' : '0', 156)
  block.write('ustar\x0000', 257, 'latin1')
  const checksum = block.reduce((sum, byte) => sum + byte, 0)
  block.write(`${octal(checksum, 6)} `, 148)
  return block
}

const pad = (bytes: Uint8Array) => Buffer.concat([bytes, Buffer.alloc(paddingOf(bytes.length))])

/** One record of a PAX header, `length key=value\n`, where the length counts its own digits. */
function paxRecord(key: string, value: string): string {
  const rest = Buffer.byteLength(` ${key}=${value}\n`)
  let length = rest
  while (length !== rest + String(length).length) length = rest + String(length).length
  return `${length} ${key}=${value}\n`
}

/** The header of one entry; a PAX header goes before it where ustar has no room for the name or the size. */
function entryHeader(name: string, size: number): Buffer {
  const isPlainName = /^[\x20-\x7e]{1,100}$/.test(name)
  const isPlainSize = size < 8 ** 11
  const header = headerBlock(isPlainName ? name : 'file', isPlainSize ? size : 0, 'file')
  if (isPlainName && isPlainSize) return header
  const records = Buffer.from(
    (isPlainName ? '' : paxRecord('path', name)) + (isPlainSize ? '' : paxRecord('size', String(size))),
  )
  return Buffer.concat([headerBlock('PaxHeader', records.length, 'pax'), pad(records), header])
}

const byPath = (a: ExportFile, b: ExportFile) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0)

/** Reads `start` to `end`, both inclusive, across segments; opens each file only when its turn comes. */
async function* readSegments(segments: Segment[], start: number, end: number): AsyncGenerator<Uint8Array> {
  let offset = 0
  for (const segment of segments) {
    const from = Math.max(start - offset, 0)
    const to = Math.min(end - offset, segment.size - 1)
    if (from <= to) {
      yield* await segment.read(from, to)
    }
    offset += segment.size
    if (offset > end) return
  }
}

/**
 * Lays the files of an export out as a tar (POSIX.1-2001) in the folder `folder`, sorted by path. Size and digest are
 * known before any file is read, and any range of the archive can be read by itself.
 */
export function archiveOf(
  folder: string,
  files: ExportFile[],
  open: (path: string) => Promise<StoredFile>,
): StoredBytes & { digest: string } {
  const segments: Segment[] = []
  const digest = createHash('sha256')
  for (const { path, bytes, sha256 } of files.toSorted(byPath)) {
    const header = entryHeader(`${folder}/${path}`, bytes)
    segments.push(bytesSegment(header))
    segments.push({ size: bytes, read: async (start, end) => (await open(path)).read(start, end) })
    segments.push(bytesSegment(new Uint8Array(paddingOf(bytes))))
    digest.update(header).update(sha256)
  }
  segments.push(bytesSegment(new Uint8Array(2 * blockSize)))
  return {
    size: segments.reduce((sum, segment) => sum + segment.size, 0),
    digest: digest.digest('hex'),
    read: async (start, end) => readSegments(segments, start, end),
  }
}
