import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { openSqlite } from '../../../src/db/sqlite.ts'

describe('openSqlite', () => {
  it('makes a statement once, and gives it as it was made', () => {
    const sqlite = openSqlite(':memory:', { timeout: 0 })
    const text = 'select 1 as one'
    const first = sqlite.prepare(text)
    expect(first.raw().get()).toEqual([1])
    expect(sqlite.prepare(text)).toBe(first)
    expect(sqlite.prepare(text).get()).toEqual({ one: 1 })
    expect(sqlite.prepare(text).pluck().get()).toBe(1)
    expect(sqlite.prepare(text).get()).toEqual({ one: 1 })
    sqlite.prepare('create table t (x)').run()
    expect(() => sqlite.prepare('create table t (x)')).not.toThrow()
    sqlite.close()
  })

  it('outlives the collection of what it made, which ends Node 24.19 and later if statements are among it', async () => {
    const child = join(import.meta.dirname, 'idle-statements.ts')
    const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', child])
    expect(stdout).toBe('done\n')
  })
})
