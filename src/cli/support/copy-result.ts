import { cp, readdir } from 'node:fs/promises'
import { resolve } from 'node:path'
import { EngineError } from '../../../engine/errors.ts'

/** @throws EngineError `conflict` when a folder that is to be written holds something. Checked before the work. */
export async function checkOutput(folder: string): Promise<void> {
  const entries = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw new EngineError('invalid', 'output_unusable', `${folder} cannot be written: ${error.message}`, {
      param: 'output',
    })
  })
  if (entries.length === 0) return
  throw new EngineError('conflict', 'output_not_empty', `${folder} exists and is not empty.`, {
    param: 'output',
  })
}

/** Copies a published folder to where the user wants it too; returns that place. */
export async function copyResult(from: string, to: string): Promise<string> {
  const folder = resolve(to)
  await cp(from, folder, { recursive: true, errorOnExist: true, force: false })
  return folder
}
