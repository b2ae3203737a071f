import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { checkFreeSpace, commitFolder, sweepPartialFolders } from '../../../engine/weights/atomic-folder.ts'
import { scratchFolder } from './tiny-model.ts'

let parent: string
let target: string
beforeEach(() => {
  parent = scratchFolder()
  target = join(parent, 'out')
})
afterEach(() => rmSync(parent, { recursive: true }))

describe('commitFolder', () => {
  it('shows the folder only when it is whole', async () => {
    const result = await commitFolder(target, async (partial) => {
      writeFileSync(join(partial, 'file'), 'content')
      expect(existsSync(target)).toBe(false)
      return 7
    })
    expect(result).toBe(7)
    expect(readdirSync(parent)).toEqual(['out'])
    expect(readFileSync(join(target, 'file'), 'utf8')).toBe('content')
  })

  it('leaves nothing when filling fails, and passes the error on', async () => {
    const filling = commitFolder(target, async (partial) => {
      writeFileSync(join(partial, 'file'), 'content')
      throw new Error('no')
    })
    await expect(filling).rejects.toThrow('no')
    expect(readdirSync(parent)).toEqual([])
  })

  it('says that the disk is full', async () => {
    const full = Object.assign(new Error('write'), { code: 'ENOSPC' })
    const filling = commitFolder(target, () => Promise.reject(full))
    await expect(filling).rejects.toMatchObject({ kind: 'too_large', code: 'disk_full' })
  })

  it('leaves nothing when it was cancelled in the last moment', async () => {
    const controller = new AbortController()
    const filling = commitFolder(target, async () => controller.abort(), controller.signal)
    await expect(filling).rejects.toMatchObject({ kind: 'cancelled' })
    expect(readdirSync(parent)).toEqual([])
  })

  it('takes an empty folder over, but none with contents', async () => {
    mkdirSync(target)
    await commitFolder(target, async (partial) => writeFileSync(join(partial, 'file'), ''))
    await expect(commitFolder(target, async () => {})).rejects.toMatchObject({
      kind: 'conflict',
      code: 'output_not_empty',
    })
    expect(readdirSync(target)).toEqual(['file'])
  })
})

describe('sweepPartialFolders', () => {
  it('removes what dead processes left and nothing else', () => {
    const names = [
      '.out.partial-999999999-0123abcd',
      `.out.partial-${process.pid}-0123abcd`,
      `.out.partial-${process.ppid}-0123abcd`,
      '.out.partial-notes',
      'out',
    ]
    for (const name of names) mkdirSync(join(parent, name))
    sweepPartialFolders(parent)
    expect(readdirSync(parent).sort()).toEqual(names.slice(2).sort())
  })

  it('spares what this process is filling', async () => {
    await commitFolder(target, async (partial) => {
      sweepPartialFolders(parent)
      expect(existsSync(partial)).toBe(true)
    })
  })
})

describe('checkFreeSpace', () => {
  it('names what is needed and what is there, also for a folder that does not exist yet', () => {
    checkFreeSpace(target, 1)
    expect(() => checkFreeSpace(join(target, 'deeper'), 2 ** 50)).toThrow(
      /needs 1125899906842624 bytes, but its disk has only \d+ free/,
    )
  })
})
