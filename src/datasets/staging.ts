import { randomBytes } from 'node:crypto'
import { mkdir, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { EngineError } from '../../engine/errors.ts'

/** A complete file that belongs to no dataset yet. */
export interface StagedFile {
  path: string
  bytes: number
  /** Removes the file. Harmless after it was moved away. */
  discard(): Promise<void>
}

/** Unfinished and unregistered files start with this, so that nothing takes them for data. */
const PREFIX = '.upload-'

/**
 * Writes `content` to a new hidden file in `directory` as it arrives, and syncs it to disk. When the stream or the disk
 * fails or the limit is passed, nothing stays behind.
 *
 * @param options.extension with its dot, kept as the file's ending so that its reader is known.
 * @throws EngineError `payload_too_large` above `limitBytes`, `disk_full`; an error of the stream passes through.
 */
export async function stageFile(
  content: AsyncIterable<Uint8Array>,
  options: { directory: string; extension: string; limitBytes: number },
): Promise<StagedFile> {
  await mkdir(options.directory, { recursive: true })
  const path = join(options.directory, `${PREFIX}${randomBytes(8).toString('hex')}${options.extension}`)
  const discard = () => rm(path, { force: true })
  const handle = await open(path, 'wx')
  let bytes = 0
  try {
    for await (const chunk of content) {
      bytes += chunk.byteLength
      if (bytes > options.limitBytes) throw tooLarge(options.limitBytes)
      await handle.writeFile(chunk)
    }
    await handle.sync()
    await handle.close()
  } catch (error) {
    await handle.close().catch(() => {})
    await discard()
    throw isDiskFull(error) ? diskFull(error) : error
  }
  return { path, bytes, discard }
}

function tooLarge(limit: number): EngineError {
  return new EngineError(
    'too_large',
    'payload_too_large',
    `The file is larger than the limit of ${limit} bytes.`,
    { param: 'file' },
  )
}

function isDiskFull(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT')
}

function diskFull(cause: unknown): EngineError {
  return new EngineError('unavailable', 'disk_full', 'The disk is full; nothing was kept of the file.', {
    cause,
  })
}
