import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import { databaseError } from './client.ts'
import { openSqlite, type Sqlite } from './sqlite.ts'

export interface ServerLock {
  release(): void
}

/**
 * Makes this process the only server on a saves directory. The lock is the operating system's (held through a small
 * SQLite file), so it ends with the process, however that dies. server.json beside it names the holder.
 *
 * @throws EngineError `conflict` with the holder's process id.
 */
export function lockServer(saves: string): ServerLock {
  const file = join(saves, '.server-lock.db')
  const holderFile = join(saves, 'server.json')
  let lock: Sqlite | undefined
  try {
    mkdirSync(saves, { recursive: true })
    lock = openSqlite(file, { timeout: 0 })
    lock.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    lock?.close()
    if (!isBusy(error)) throw databaseError(error, file)
    throw new EngineError(
      'conflict',
      'server_running',
      `Another server${holderOf(holderFile)} works on ${saves}. Stop it first, or give this one another ` +
        'saves directory (directories.saves, ANNEAL_SAVES_DIR).',
    )
  }
  const held = lock
  writeFileSync(holderFile, `${JSON.stringify({ pid: process.pid, startedAt: new Date().toISOString() })}\n`)
  return {
    release() {
      rmSync(holderFile, { force: true })
      held.close()
    },
  }
}

function isBusy(error: unknown): boolean {
  return error instanceof Error && 'code' in error && String(error.code).startsWith('SQLITE_BUSY')
}

function holderOf(file: string): string {
  try {
    return ` (process ${JSON.parse(readFileSync(file, 'utf8')).pid})`
  } catch {
    return ''
  }
}
