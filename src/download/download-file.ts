import { createHash, type Hash } from 'node:crypto'
import { createReadStream, existsSync, renameSync, rmSync, statSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import { checkCancelled, diskError } from '../../engine/weights/atomic-folder.ts'

export interface DownloadedFile {
  /** Its name below the folder that it is downloaded into. */
  path: string
  size: number
  /** What its content hashes to: SHA-2 of the bytes, or SHA-1 of a git blob. Unknown where the caller checks by itself. */
  digest?: { algorithm: 'sha256' | 'sha512' | 'git-sha1'; hex: string }
}

export interface FileSource {
  file: DownloadedFile
  /** Opens the content from a byte on; a server without ranges answers from byte 0. */
  open(start: number, signal?: AbortSignal): Promise<{ start: number; body: ReadableStream<Uint8Array> }>
}

/** How often a broken connection is taken up again where it broke, as long as each attempt brings something. */
const MAX_BREAKS = 20

/**
 * Downloads one file into a folder. What an earlier attempt left (`NAME.part`) is hashed and continued; the file gets its
 * name once size and digest are right.
 *
 * @param onBytes is told how many more bytes are there, those of earlier attempts included.
 * @throws EngineError `invalid` when size or digest are wrong (nothing is kept then), and what `open` throws.
 */
export async function downloadFile(
  source: FileSource,
  folder: string,
  onBytes: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  const { file } = source
  const target = join(folder, file.path)
  if (existsSync(target)) return onBytes(file.size) // checked when it got its name
  const part = `${target}.part`
  const left = statSync(part, { throwIfNoEntry: false })?.size ?? 0
  if (left > file.size) rmSync(part)
  const hash = startHash(file)
  let done = await hashPart(part, hash)
  onBytes(done)
  for (let breaks = 0; done < file.size; breaks++) {
    const before = done
    const failure = await append(source, part, done, hash, onBytes, signal).catch(passing(signal))
    done = statSync(part, { throwIfNoEntry: false })?.size ?? 0
    if (done === before || breaks === MAX_BREAKS) throw broken(file, done, failure)
  }
  if (file.size === 0) await (await open(part, 'w')).close()
  check(file, hash.digest('hex'), part)
  renameSync(part, target)
}

/** Git hashes a header before the content of a blob. */
function startHash({ size, digest }: DownloadedFile): Hash {
  const algorithm = digest?.algorithm ?? 'sha256'
  return algorithm === 'git-sha1' ? createHash('sha1').update(`blob ${size}\0`) : createHash(algorithm)
}

async function hashPart(part: string, hash: Hash): Promise<number> {
  if (!existsSync(part)) return 0
  let done = 0
  for await (const chunk of createReadStream(part, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
    hash.update(chunk)
    done += chunk.length
  }
  return done
}

async function append(
  { file, open: openContent }: FileSource,
  part: string,
  done: number,
  hash: Hash,
  onBytes: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  const { start, body } = await openContent(done, signal)
  let skip = done - start // a server without ranges sends what is there already once more
  const handle = await open(part, 'a')
  try {
    for await (const chunk of body as unknown as AsyncIterable<Uint8Array>) {
      checkCancelled(signal)
      const fresh = chunk.subarray(Math.min(skip, chunk.length))
      skip -= chunk.length - fresh.length
      if (done + fresh.length > file.size) throw tooLong(file, part)
      await write(handle, fresh, part)
      hash.update(fresh)
      done += fresh.length
      onBytes(fresh.length)
    }
  } finally {
    await handle.close()
  }
}

/** Throws what no further attempt would change, and returns what broke a connection. */
function passing(signal: AbortSignal | undefined): (error: unknown) => unknown {
  return (error) => {
    if (signal?.aborted)
      throw new EngineError('cancelled', 'cancelled', 'The download was stopped.', { cause: error })
    if (error instanceof EngineError) throw error
    return error
  }
}

async function write(handle: FileHandle, bytes: Uint8Array, part: string): Promise<void> {
  try {
    await handle.appendFile(bytes)
  } catch (error) {
    throw diskError(error, dirname(part))
  }
}

function tooLong(file: DownloadedFile, part: string): EngineError {
  rmSync(part)
  return new EngineError(
    'invalid',
    'download_size_wrong',
    `${file.path} is longer than the ${file.size} bytes that its source lists`,
  )
}

function broken(file: DownloadedFile, done: number, cause: unknown): EngineError {
  return new EngineError(
    'unavailable',
    'download_broken',
    `${file.path} broke off at ${done} of ${file.size} bytes; the same command goes on from there`,
    { cause },
  )
}

function check(file: DownloadedFile, digest: string, part: string): void {
  if (file.digest === undefined || digest === file.digest.hex) return
  rmSync(part)
  throw new EngineError(
    'invalid',
    'download_digest_wrong',
    `${file.path} has the ${file.digest.algorithm} digest ${digest}, but its source lists ${file.digest.hex}; it was thrown away`,
  )
}
