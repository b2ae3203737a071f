import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'

/** Where deleted folders wait inside the saves directory until they are really gone. */
export const TRASH = '.trash'

/** Removes a folder so that it is either there or gone: it is renamed away first. What a crash leaves is swept at start. */
export async function removeFolder(folder: string, saves: string): Promise<void> {
  if (!existsSync(folder)) return
  const trash = join(saves, TRASH)
  await mkdir(trash, { recursive: true })
  const waiting = join(trash, randomBytes(8).toString('hex'))
  try {
    await rename(folder, waiting)
  } catch (error) {
    // An output folder outside the saves may lie on another disk.
    if (!(error instanceof Error && 'code' in error && error.code === 'EXDEV')) throw error
    await rm(folder, { recursive: true, force: true })
  }
  await rm(waiting, { recursive: true, force: true })
}
