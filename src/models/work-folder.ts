import { existsSync } from 'node:fs'
import { readdir, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

/** Finished layers of an export that is not done yet, beside its output folder. */
export function workFolderOf(outputDir: string): string {
  return join(dirname(outputDir), `.${basename(outputDir)}.layers`)
}

/** Removes the layers of exports that nothing will go on with. @param active ids of jobs that wait or run. */
export async function sweepWorkFolders(exports: string, active: ReadonlySet<string>): Promise<void> {
  if (!existsSync(exports)) return
  for (const name of await readdir(exports)) {
    const id = /^\.(.+)\.layers$/.exec(name)?.[1]
    if (id === undefined || active.has(id)) continue
    await rm(join(exports, name), { recursive: true, force: true })
  }
}
