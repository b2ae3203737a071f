import { mkdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { type BetterSQLite3Database, drizzle } from 'drizzle-orm/better-sqlite3'
import { migrate } from 'drizzle-orm/better-sqlite3/migrator'
import { EngineError } from '../../engine/errors.ts'
import * as schema from './schema.ts'
import { openSqlite, type Sqlite } from './sqlite.ts'

export type Db = BetterSQLite3Database<typeof schema>

const MIGRATIONS = resolve(import.meta.dirname, '../../migrations')

/** How long a writer waits for another process's transaction. */
const BUSY_TIMEOUT_MS = 10_000

/**
 * Opens the database, creates it where it is missing, and brings it to the newest migration. Commits survive a power
 * cut (WAL, synchronous=FULL).
 *
 * @param file a path, or ':memory:'
 * @throws EngineError when the file cannot be opened, is no database or is damaged, or the disk is full.
 */
export function openDatabase(file: string): { db: Db; close(): void } {
  let sqlite: Sqlite | undefined
  try {
    if (file !== ':memory:') mkdirSync(dirname(file), { recursive: true })
    sqlite = openSqlite(file, { timeout: BUSY_TIMEOUT_MS })
    sqlite.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON')
    const db = drizzle(sqlite, { schema })
    if (!isCurrent(sqlite)) applyMigrations(db)
    const opened = sqlite
    return { db, close: () => void opened.close() }
  } catch (cause) {
    sqlite?.close()
    throw databaseError(cause, file)
  }
}

/** Whether the newest migration is there already: drizzle would read and hash every file to say so. */
function isCurrent(sqlite: Sqlite): boolean {
  const known = sqlite.prepare("select 1 from sqlite_master where name = '__drizzle_migrations'").get()
  if (!known) return false
  const journal = JSON.parse(readFileSync(join(MIGRATIONS, 'meta/_journal.json'), 'utf8')) as {
    entries: Array<{ when: number }>
  }
  const last = sqlite.prepare('select max(created_at) from __drizzle_migrations').pluck().get()
  return last === journal.entries.at(-1)?.when
}

/** Two processes may find the same fresh database: the one that comes second finds the tables made, and looks again. */
function applyMigrations(db: Db): void {
  try {
    migrate(db, { migrationsFolder: MIGRATIONS })
  } catch (error) {
    if (!/already exists/.test(rootCause(error).message)) throw error
    migrate(db, { migrationsFolder: MIGRATIONS })
  }
}

const MEANINGS: Array<[RegExp, 'unavailable' | 'internal', string, string]> = [
  [/^SQLITE_FULL/, 'unavailable', 'disk_full', 'the disk is full. Free some space; nothing was lost'],
  [/^SQLITE_BUSY/, 'unavailable', 'database_busy', 'another process holds it for too long. Try again'],
  [
    /^SQLITE_READONLY/,
    'internal',
    'database_read_only',
    'it is read-only. Give this user the right to write',
  ],
  [/^SQLITE_(CANTOPEN|PERM|AUTH)|^E[A-Z]+$/, 'internal', 'database_unopenable', 'it cannot be opened'],
  [
    /^SQLITE_(CORRUPT|NOTADB)/,
    'internal',
    'database_damaged',
    'it is damaged or no SQLite database. Restore it from a copy, or move it away to start with an empty one',
  ],
  [
    /^ERR_DLOPEN_FAILED/,
    'internal',
    'database_module_unusable',
    'better-sqlite3 does not load, most often because Node.js was exchanged since it was installed. Run `npm rebuild better-sqlite3`',
  ],
  [/^SQLITE_IOERR/, 'internal', 'database_io_error', 'the disk reports an input/output error'],
]

/** Says in words why a statement failed; errors that are nobody's fault but the program's pass through unchanged. */
export function databaseError(error: unknown, file: string): Error {
  const cause = rootCause(error)
  const code = 'code' in cause ? String(cause.code) : ''
  const meaning = MEANINGS.find(([pattern]) => pattern.test(code))
  if (!meaning) return error instanceof Error ? error : cause
  const [, kind, name, reason] = meaning
  return new EngineError(kind, name, `The database ${file}: ${reason} (${cause.message}).`, { cause: error })
}

/** Drizzle wraps the driver's error, which carries the code. */
function rootCause(error: unknown): Error {
  if (!(error instanceof Error)) return new Error(String(error))
  return error.cause instanceof Error ? rootCause(error.cause) : error
}
