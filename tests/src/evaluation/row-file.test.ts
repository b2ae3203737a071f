import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { fillRows } from '../../../src/evaluation/row-file.ts'

const items = ['a', 'b', 'c', 'd', 'e']
let folder: string
let file: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'anneal-rows-'))
  file = join(folder, 'rows.jsonl')
})

afterEach(() => rmSync(folder, { recursive: true }))

function options(signal = new AbortController().signal) {
  const seen: number[] = []
  return { concurrency: 3, signal, seen, onRow: (done: number) => void seen.push(done) }
}

describe('fillRows', () => {
  it('writes results in the order of the items, whichever is ready first', async () => {
    const releases: (() => void)[] = []
    const work = (item: string, index: number) =>
      index < 3
        ? new Promise<string>((resolve) => {
            releases[index] = () => resolve(item.toUpperCase())
            if (index === 2) for (const release of releases.toReversed()) release()
          })
        : Promise.resolve(item.toUpperCase())
    const settings = options()
    expect(await fillRows(file, items, work, settings)).toEqual(['A', 'B', 'C', 'D', 'E'])
    expect(readFileSync(file, 'utf8')).toBe('"A"\n"B"\n"C"\n"D"\n"E"\n')
    expect(settings.seen).toEqual([0, 1, 2, 3, 4, 5])
  })

  it('keeps whole lines of an earlier start and does the half one again', async () => {
    writeFileSync(file, '"A"\n"B"\n"C')
    const asked: string[] = []
    const work = async (item: string) => {
      asked.push(item)
      return item.toUpperCase()
    }
    expect(await fillRows(file, items, work, options())).toEqual(['A', 'B', 'C', 'D', 'E'])
    expect(asked).toEqual(['c', 'd', 'e'])
    expect(readFileSync(file, 'utf8')).toBe('"A"\n"B"\n"C"\n"D"\n"E"\n')
  })

  it('leaves what is done on disk when a row fails', async () => {
    const work = async (item: string) => {
      if (item === 'c') throw new Error('no answer')
      return item
    }
    await expect(fillRows(file, items, work, options())).rejects.toThrow('no answer')
    expect(readFileSync(file, 'utf8')).toBe('"a"\n"b"\n')
  })

  it('stops at an abort', async () => {
    const abort = new AbortController()
    const work = async (item: string) => {
      if (item === 'b') abort.abort()
      return item
    }
    await expect(fillRows(file, items, work, options(abort.signal))).rejects.toThrow(/abort/i)
  })
})
