import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { databaseError, openDatabase } from '../../../src/db/client.ts'
import { JobQueries } from '../../../src/db/queries.ts'
import { event } from '../../../src/jobs/event.ts'
import { loaderArguments } from '../loader-arguments.ts'

function temporaryFile(): string {
  return join(mkdtempSync(join(tmpdir(), 'anneal-db-')), 'deep', 'anneal.db')
}

const job = {
  id: 'run-000000000001',
  kind: 'train',
  request: {},
  resolved: { a: 1 },
  outputDir: '/x',
} as const

describe('openDatabase', () => {
  it('makes the file, applies the migrations and keeps rows across openings', () => {
    const file = temporaryFile()
    const first = openDatabase(file)
    new JobQueries(first.db).insert(job, event('queued', ''))
    first.close()
    const second = openDatabase(file)
    expect(new JobQueries(second.db).find(job.id)).toMatchObject({ ...job, status: 'queued', position: 1 })
    second.close()
  })

  it('commits durably: WAL, synchronous=FULL, foreign keys', () => {
    const file = temporaryFile()
    const { db, close } = openDatabase(file)
    const pragma = (name: string) => Object.values(db.get(`PRAGMA ${name}`) as object)[0]
    expect(pragma('journal_mode')).toBe('wal')
    expect(pragma('synchronous')).toBe(2)
    expect(pragma('foreign_keys')).toBe(1)
    close()
  })

  it('is clear about a file that is no database', () => {
    const file = join(mkdtempSync(join(tmpdir(), 'anneal-db-')), 'anneal.db')
    writeFileSync(file, 'not a database at all, but long enough to have a header'.repeat(10))
    expect(() => openDatabase(file)).toThrow(expect.objectContaining({ code: 'database_damaged' }))
    expect(() => openDatabase(file)).toThrow(/Restore it from a copy/)
  })

  it('is clear about a folder that it cannot make', () => {
    const blocker = join(mkdtempSync(join(tmpdir(), 'anneal-db-')), 'file')
    writeFileSync(blocker, '')
    expect(() => openDatabase(join(blocker, 'anneal.db'))).toThrow(
      expect.objectContaining({ code: 'database_unopenable' }),
    )
  })

  it('says what to do where Node.js was exchanged under the compiled driver', () => {
    const cause = Object.assign(new Error('NODE_MODULE_VERSION 115'), { code: 'ERR_DLOPEN_FAILED' })
    expect(databaseError(cause, 'anneal.db')).toMatchObject({ code: 'database_module_unusable' })
    expect(databaseError(cause, 'anneal.db').message).toMatch(/npm rebuild better-sqlite3/)
  })

  // Root may write whatever the mode says.
  const asRoot = process.getuid?.() === 0
  it.skipIf(asRoot)(`is clear about a read-only database${asRoot ? ' (skipped: runs as root)' : ''}`, () => {
    const file = temporaryFile()
    openDatabase(file).close()
    chmodSync(file, 0o444)
    chmodSync(join(file, '..'), 0o555)
    expect(() => openDatabase(file)).toThrow(/read-only/)
  })

  it('is clear about a full disk, and writes again when there is room', () => {
    const file = temporaryFile()
    const { db, close } = openDatabase(file)
    const queries = new JobQueries(db)
    queries.insert(job, event('queued', ''))
    const { page_count } = db.get('PRAGMA page_count') as { page_count: number }
    db.get(`PRAGMA max_page_count = ${page_count}`)
    const flood = () => queries.record(job.id, Array(200).fill(event('log', 'x'.repeat(500))), undefined)
    let failure: unknown
    try {
      flood()
    } catch (error) {
      failure = databaseError(error, file)
    }
    expect(failure).toMatchObject({ kind: 'unavailable', code: 'disk_full' })
    expect(queries.eventsAfter(job.id, 0, 1000)).toHaveLength(1)
    db.get('PRAGMA max_page_count = 100000')
    flood()
    expect(queries.eventsAfter(job.id, 0, 1000)).toHaveLength(201)
    close()
  })

  it('lets several processes find the same fresh database', async () => {
    const file = temporaryFile()
    const module = new URL('../../../src/db/client.ts', import.meta.url)
    const script = `import { openDatabase } from '${module.href}'; openDatabase(${JSON.stringify(file)}).close()`
    const args = [...loaderArguments(module), '--input-type=module', '-e', script]
    const children = Array.from({ length: 3 }, () => spawn(process.execPath, args, { stdio: 'inherit' }))
    const codes = await Promise.all(children.map(async (child) => (await once(child, 'exit'))[0]))
    expect(codes).toEqual([0, 0, 0])
  })
})

describe('JobQueries', () => {
  const { db } = openDatabase(':memory:')
  const queries = new JobQueries(db)
  const owner = { pid: 1, startedAt: 'a' }

  it('claims in creation order, once, and not what others keep', () => {
    queries.insert({ ...job, id: 'run-a' }, event('queued', ''))
    queries.insert({ ...job, id: 'run-b', owner: { pid: 2, startedAt: 'b' } }, event('queued', ''))
    queries.insert({ ...job, id: 'run-c' }, event('queued', ''))
    expect(queries.claim('merge', owner)).toBeUndefined()
    expect(queries.claim('train', owner)).toMatchObject({ id: 'run-a', status: 'running', ownerPid: 1 })
    expect(queries.claim('train', owner, 'run-b')).toBeUndefined()
    expect(queries.claim('train', owner)?.id).toBe('run-c')
    expect(queries.claim('train', owner)).toBeUndefined()
    expect(queries.claim('train', { pid: 2, startedAt: 'b' }, 'run-b')?.id).toBe('run-b')
  })

  it('lists newest first with a cursor', () => {
    const page = queries.list({ kind: 'train', limit: 2 })
    expect(page.map(({ id }) => id)).toEqual(['run-c', 'run-b'])
    expect(queries.list({ before: page[1]!.position }).map(({ id }) => id)).toEqual(['run-a'])
  })

  it('deletes a job at rest with its events, and no other', () => {
    expect(queries.delete('run-a')).toBe(false)
    queries.transition('run-a', ['running'], { status: 'failed' })
    expect(queries.delete('run-a')).toBe(true)
    expect(queries.eventsAfter('run-a', 0, 10)).toEqual([])
  })
})
