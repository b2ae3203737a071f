import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import type { ExportFile, StoredFile } from '../../routes/services.ts'
import type { Job } from '../jobs/types.ts'
import type { FolderLeases } from '../models/leases.ts'
import { FileChunks } from './file-chunks.ts'
import { conflict } from './jobs.ts'

/**
 * The paths that exist for a client: those that the finished job hashed. Nothing else of the folder can be named.
 *
 * @throws EngineError `conflict` when the job has not succeeded, `not_found` for one that kept no digests.
 */
export function filesOf(job: Job): ExportFile[] {
  if (job.status !== 'succeeded') {
    throw conflict(
      `${job.kind}_not_finished`,
      `${job.id} is ${job.status}; its files exist once it has succeeded.`,
    )
  }
  const { files } = job.result as { files?: { path: string; bytes: number; sha256: string }[] }
  if (!files) {
    throw new EngineError(
      'not_found',
      'files_not_published',
      `${job.id} was made before files had digests; make it anew.`,
    )
  }
  return files.map((file) => ({ object: 'export.file', ...file }))
}

/** One of `filesOf`; its folder is kept while it is read. @throws EngineError `not_found` for any other path. */
export function fileOf(job: Job, path: string, leases: FolderLeases): StoredFile {
  const entry = filesOf(job).find((file) => file.path === path)
  if (!entry) {
    throw new EngineError(
      'not_found',
      'file_not_found',
      `${job.id} has no file ${JSON.stringify(path.slice(0, 200))}.`,
      { param: 'path' },
    )
  }
  const absolute = join(job.outputDir, entry.path)
  return {
    path: entry.path,
    sha256: entry.sha256,
    size: entry.bytes,
    async read(start, end) {
      const release = leases.acquire(job.outputDir)
      try {
        return await FileChunks.open(absolute, { start, end, onClose: release })
      } catch (error) {
        release()
        throw error
      }
    },
  }
}

/** A name for the state of all files: 40 hexadecimal digits, as a commit has. */
export function commitOf(files: readonly ExportFile[]): string {
  const hash = createHash('sha256')
  for (const { path, sha256 } of files) hash.update(`${sha256}  ${path}\n`)
  return hash.digest('hex').slice(0, 40)
}
