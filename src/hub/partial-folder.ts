import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { z } from 'zod'
import { EngineError } from '../../engine/errors.ts'
import { identityOf, isAlive } from '../jobs/process-identity.ts'

/** Where a pull collects files until all are there. */
export interface PartialFolder {
  folder: string
  /** What an earlier pull has left in it. */
  bytes(): number
  /** Forgets what was downloaded. */
  remove(): void
  /** Lets another process go on with it. */
  release(): void
}

const ownerSchema = z.object({ pid: z.number(), startedAt: z.string() })

/**
 * `.NAME.pull-COMMIT` beside the folder that it will become: a later pull of the same commit goes on with it, one of
 * another commit begins anew and removes it.
 *
 * @throws EngineError `conflict` while another process downloads the same model.
 */
export function claimPartialFolder(target: string, commit: string): PartialFolder {
  const [parent, name] = [dirname(target), basename(target)]
  const prefix = `.${name}.pull-`
  const folder = join(parent, `${prefix}${commit}`)
  const lock = join(parent, `.${name}.pull.lock`)
  takeLock(lock, name)
  for (const entry of readdirSync(parent)) {
    if (entry.startsWith(prefix) && join(parent, entry) !== folder)
      rmSync(join(parent, entry), { recursive: true })
  }
  mkdirSync(folder, { recursive: true })
  return {
    folder,
    bytes: () => readdirSync(folder).reduce((sum, entry) => sum + statSync(join(folder, entry)).size, 0),
    remove: () => rmSync(folder, { recursive: true, force: true }),
    release: () => rmSync(lock, { force: true }),
  }
}

function takeLock(lock: string, name: string): void {
  const self = identityOf(process.pid)
  for (const isLast of [false, true]) {
    try {
      writeFileSync(lock, JSON.stringify(self), { flag: 'wx' })
      return
    } catch (error) {
      if (!isTaken(error) || isLast || isOwned(lock)) {
        if (!isTaken(error)) throw error
        throw new EngineError('conflict', 'pull_running', `Another process is downloading ${name} now.`, {
          param: 'name',
        })
      }
      rmSync(lock, { force: true }) // of a process that died
    }
  }
}

function isTaken(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EEXIST'
}

function isOwned(lock: string): boolean {
  if (!existsSync(lock)) return false
  try {
    return isAlive(ownerSchema.parse(JSON.parse(readFileSync(lock, 'utf8'))))
  } catch {
    return false
  }
}
