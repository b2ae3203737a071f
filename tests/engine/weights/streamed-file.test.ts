import { createHash } from 'node:crypto'
import fs, { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { ROOM_BYTES, StreamBuffers, StreamedFile } from '../../../engine/weights/streamed-file.ts'
import { scratchFolder } from './tiny-model.ts'

let scratch: string
let path: string
beforeEach(() => {
  scratch = scratchFolder()
  path = join(scratch, 'file')
})
afterEach(() => {
  vi.restoreAllMocks()
  syncBuiltinESMExports()
  rmSync(scratch, { recursive: true })
})

/** Bytes that repeat nowhere near. */
function content(length: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4))
  for (let i = 0, state = 1; i < words.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    words[i] = state
  }
  return new Uint8Array(words.buffer, 0, length)
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/** Writes bytes in rooms of some lengths that take turns, each asked for before the last one is committed. */
async function fill(file: StreamedFile, bytes: Uint8Array, lengths: readonly number[]): Promise<void> {
  const ends: number[] = [0]
  while (ends.at(-1)! < bytes.length) {
    ends.push(Math.min(bytes.length, ends.at(-1)! + lengths[ends.length % lengths.length]!))
  }
  let next = file.room(0, ends[1]!)
  for (let i = 1; i < ends.length; i++) {
    const room = await next
    if (i + 1 < ends.length) next = file.room(ends[i]!, ends[i + 1]! - ends[i]!)
    room.set(bytes.subarray(ends[i - 1], ends[i]))
    file.commit(ends[i]!)
  }
}

async function write(bytes: Uint8Array, largeBytes: number): Promise<string | undefined> {
  const buffers = new StreamBuffers(bytes.length, { digests: true, largeBytes })
  const file = new StreamedFile(path, bytes.length, buffers)
  try {
    await fill(file, bytes, [ROOM_BYTES, 700_001, 3])
    return await file.finish()
  } catch (error) {
    await file.abort()
    throw error
  } finally {
    await buffers.close()
  }
}

const large = content(40_000_003) // more than two turns of the ring

describe('StreamedFile', () => {
  it.each([
    ['one byte', 1, 2],
    ['one byte past the page cache', 1, 1],
    ['a whole block past the page cache', 4 << 20, 1],
    ['more than the ring takes', large.length, Number.POSITIVE_INFINITY],
    ['more than the ring takes, past the page cache', large.length, 1],
  ])('writes %s, with its digest', async (_, length, largeBytes) => {
    const bytes = large.subarray(0, length)
    expect(await write(bytes, largeBytes)).toBe(sha256(bytes))
    expect(readFileSync(path).equals(bytes)).toBe(true)
    expect(readdirSync(scratch)).toEqual(['file'])
  })

  it('takes pieces of any length between rooms, and one file after the other', async () => {
    const buffers = new StreamBuffers(large.length, { digests: true, largeBytes: 1 })
    for (const turn of [1, 2]) {
      const bytes = large.subarray(0, large.length - turn)
      const file = new StreamedFile(path, bytes.length, buffers)
      await file.put(0, bytes.subarray(0, 30_000_000))
      const room = await file.room(30_000_000, 5)
      room.set(bytes.subarray(30_000_000, 30_000_005))
      file.commit(30_000_005)
      await file.put(30_000_005, bytes.subarray(30_000_005))
      expect(await file.finish()).toBe(sha256(bytes))
      expect(readFileSync(path).equals(bytes)).toBe(true)
    }
    await buffers.close()
  })

  it('goes through the page cache where the system refuses to go past it', async () => {
    const { openSync } = fs
    let refused = 0
    vi.spyOn(fs, 'openSync').mockImplementation((target, flags, mode) => {
      if (typeof flags !== 'number') return openSync(target, flags, mode)
      refused += 1
      throw Object.assign(new Error('EINVAL: invalid argument, open'), { code: 'EINVAL' })
    })
    syncBuiltinESMExports()
    expect(await write(large, 1)).toBe(sha256(large))
    expect(readFileSync(path).equals(large)).toBe(true)
    expect(refused).toBe(fs.constants.O_DIRECT === undefined ? 0 : 1)
  })

  it.skipIf(fs.constants.O_DIRECT === undefined)('does so where only writing is refused', async () => {
    const { openSync, write: writeThrough } = fs
    const direct = new Set<number>()
    vi.spyOn(fs, 'openSync').mockImplementation((target, flags, mode) => {
      const descriptor = openSync(target, flags, mode)
      if (typeof flags === 'number') direct.add(descriptor)
      return descriptor
    })
    vi.spyOn(fs, 'write').mockImplementation(((descriptor: number, ...rest: unknown[]) => {
      if (!direct.has(descriptor)) return Reflect.apply(writeThrough, fs, [descriptor, ...rest])
      const error = Object.assign(new Error('EINVAL: invalid argument, write'), { code: 'EINVAL' })
      setImmediate(rest.at(-1) as (error: Error) => void, error)
    }) as typeof fs.write)
    syncBuiltinESMExports()
    expect(await write(large, 1)).toBe(sha256(large))
    expect(readFileSync(path).equals(large)).toBe(true)
    expect(direct.size).toBe(1)
  })

  it('passes on what the disk says, and leaves nothing', async () => {
    vi.spyOn(fs, 'write').mockImplementation(((...all: unknown[]) => {
      const error = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
      setImmediate(all.at(-1) as (error: Error) => void, error)
    }) as typeof fs.write)
    syncBuiltinESMExports()
    await expect(write(large, 1)).rejects.toMatchObject({ code: 'ENOSPC' })
    expect(existsSync(path)).toBe(false)
    expect(readdirSync(scratch)).toEqual([])
  })

  it('gives no room for what lies far ahead, and does not end before its end', async () => {
    const buffers = new StreamBuffers(large.length)
    const file = new StreamedFile(path, large.length, buffers)
    await expect(file.room(2 * ROOM_BYTES, 1)).rejects.toThrow(/no room for 1 bytes at 2097152, after 0/)
    await expect(file.finish()).rejects.toThrow(/only 0 of 40000003 bytes are written/)
    await file.abort()
    await buffers.close()
  })
})
