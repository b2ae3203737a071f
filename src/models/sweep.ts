import { existsSync } from 'node:fs'
import { readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { sweepPartialFolders } from '../../engine/weights/atomic-folder.ts'
import { TRASH } from './remove.ts'

/** An upload that is this old has nobody waiting for it. */
const STALE_UPLOAD_MS = 60 * 60 * 1000

/** Removes what killed processes left half-written: partial folders, unfinished uploads, half-deleted models. */
export async function sweepTemporaries(
  directories: { models: readonly string[]; saves: string; datasets: string },
  outputDirs: readonly string[],
): Promise<void> {
  const { models, saves, datasets } = directories
  for (const folder of [...models, join(saves, 'merges'), join(saves, 'exports'), ...outputDirs])
    sweepPartialFolders(folder)
  await rm(join(saves, TRASH), { recursive: true, force: true })
  for (const folder of [datasets, join(saves, 'files')]) await sweepUploads(folder)
}

async function sweepUploads(folder: string): Promise<void> {
  if (!existsSync(folder)) return
  for (const name of await readdir(folder)) {
    if (!name.startsWith('.upload-')) continue
    const file = join(folder, name)
    const { mtimeMs } = await stat(file)
    if (Date.now() - mtimeMs > STALE_UPLOAD_MS) await rm(file, { recursive: true, force: true })
  }
}
