import { createReadStream, createWriteStream } from 'node:fs'
import { basename } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { extract } from 'tar-stream'
import { EngineError } from '../../../engine/errors.ts'

/**
 * Takes single files out of a .tgz by their base names; paths in the archive decide nothing.
 *
 * @param wanted where each file is to be written, by its base name
 * @throws EngineError `invalid` for a broken archive and for one without a wanted file.
 */
export async function extractFromTarball(
  file: string,
  wanted: ReadonlyMap<string, string>,
  signal?: AbortSignal,
): Promise<void> {
  const missing = new Set(wanted.keys())
  const archive = extract()
  archive.on('entry', (header, content, next) => {
    const name = basename(header.name)
    const target = header.type === 'file' && missing.delete(name) ? wanted.get(name) : undefined
    if (target === undefined) {
      content.resume()
      content.once('end', next)
    } else pipeline(content, createWriteStream(target)).then(() => next(), next)
  })
  try {
    await pipeline(createReadStream(file), createGunzip(), archive, { signal })
  } catch (cause) {
    if (signal?.aborted) throw cause
    const message = `${basename(file)} cannot be unpacked: ${cause instanceof Error ? cause.message : cause}.`
    throw new EngineError('invalid', 'archive_broken', message, { cause })
  }
  if (missing.size === 0) return
  const message = `${basename(file)} cannot be used: it holds no ${[...missing].join(' and no ')}.`
  throw new EngineError('invalid', 'archive_without_library', message)
}
