import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterEach, describe, expect, it } from 'vitest'
import { lockServer } from '../../../src/db/lock.ts'
import { loaderArguments } from '../loader-arguments.ts'

describe('lockServer', () => {
  let other: ChildProcess | undefined

  afterEach(() => void other?.kill('SIGKILL'))

  it('refuses a second server with the process id of the first, until that dies', async () => {
    const saves = mkdtempSync(join(tmpdir(), 'anneal-lock-'))
    const module = new URL('../../../src/db/lock.ts', import.meta.url)
    const script = `import { lockServer } from '${module.href}'
      lockServer(${JSON.stringify(saves)}); console.log('locked'); setInterval(() => {}, 1e6)`
    const args = [...loaderArguments(module), '--input-type=module', '-e', script]
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    other = child
    await once(child.stdout, 'data')
    expect(() => lockServer(saves)).toThrow(
      expect.objectContaining({ kind: 'conflict', code: 'server_running' }),
    )
    expect(() => lockServer(saves)).toThrow(new RegExp(`process ${child.pid}\\).*another saves directory`))
    child.kill('SIGKILL')
    await once(child, 'exit')
    lockServer(saves).release()
  })

  it('outlives a holder that nobody refers to any more', async () => {
    const saves = mkdtempSync(join(tmpdir(), 'anneal-lock-'))
    lockServer(saves)
    setFlagsFromString('--expose-gc')
    runInNewContext('gc')()
    await setImmediate()
    expect(() => lockServer(saves)).toThrow(expect.objectContaining({ code: 'server_running' }))
  })

  it('can be taken again after its release', () => {
    const saves = mkdtempSync(join(tmpdir(), 'anneal-lock-'))
    lockServer(saves).release()
    lockServer(saves).release()
  })
})
