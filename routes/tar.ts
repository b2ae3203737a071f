import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { pack } from 'tar-stream'
import type { ExportFile } from './schemas/artifacts.ts'
import type { StoredBytes, StoredFile } from './services.ts'

const blockSize = 512

/** A stretch of the archive that is either made here or read from a file. */
interface Segment {
  size: number
  read(start: number, end: number): Promise<Readable | Uint8Array[]>
}

const bytesSegment = (bytes: Uint8Array): Segment => ({
  size: bytes.length,
  read: async (start, end) => [bytes.subarray(start, end + 1)],
})

/**
 * The header of one entry, with a PAX header before it where the name or the size needs one. Time, owner and mode are
 * fixed, so that the same export always makes the same archive.
 */
function entryHeader(name: string, size: number): Uint8Array {
  const packer = pack()
  const entry = packer.entry({ name, size, mtime: new Date(0), mode: 0o644, uid: 0, gid: 0, type: 'file' })
  const chunks: Uint8Array[] = []
  for (let chunk = packer.read(); chunk !== null; chunk = packer.read()) chunks.push(chunk as Uint8Array)
  entry.on('error', () => {}) // it ends here on purpose, without the content
  packer.on('error', () => {})
  packer.destroy()
  return Buffer.concat(chunks)
}

const byPath = (a: ExportFile, b: ExportFile) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0)

/** Reads `start` to `end`, both inclusive, across segments; opens each file only when its turn comes. */
async function* readSegments(segments: Segment[], start: number, end: number): AsyncGenerator<Uint8Array> {
  let offset = 0
  for (const segment of segments) {
    const from = Math.max(start - offset, 0)
    const to = Math.min(end - offset, segment.size - 1)
    if (from <= to) {
      for await (const chunk of await segment.read(from, to)) yield chunk as Uint8Array
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
    const padding = (blockSize - (bytes % blockSize)) % blockSize
    segments.push(bytesSegment(header))
    segments.push({ size: bytes, read: async (start, end) => (await open(path)).read(start, end) })
    segments.push(bytesSegment(new Uint8Array(padding)))
    digest.update(header).update(sha256)
  }
  segments.push(bytesSegment(new Uint8Array(2 * blockSize)))
  return {
    size: segments.reduce((sum, segment) => sum + segment.size, 0),
    digest: digest.digest('hex'),
    read: async (start, end) => Readable.from(readSegments(segments, start, end), { objectMode: false }),
  }
}
