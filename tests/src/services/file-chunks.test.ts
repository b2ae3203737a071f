import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { FileChunks } from '../../../src/services/file-chunks.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-chunks-'))
afterAll(() => rmSync(scratch, { recursive: true }))

const content = Buffer.from(Uint32Array.from({ length: 600_000 }, (_, i) => Math.imul(i, 2654435761)).buffer)
const path = join(scratch, 'file')
writeFileSync(path, content)

async function read(start: number, end: number, onClose = () => {}): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const chunk of await FileChunks.open(path, { start, end, onClose })) {
    parts.push(Buffer.from(chunk)) // copied: the next chunk but one takes its place
  }
  return Buffer.concat(parts)
}

describe('FileChunks', () => {
  it('are exactly the bytes of any range, several at a time', async () => {
    const ends = fc.tuple(fc.nat(content.length - 1), fc.nat(content.length - 1))
    await fc.assert(
      fc.asyncProperty(fc.array(ends, { minLength: 1, maxLength: 5 }), async (ranges) => {
        const all = ranges.map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const)
        const found = await Promise.all(all.map(([start, end]) => read(start, end)))
        for (const [i, [start, end]] of all.entries()) {
          expect(found[i]!.equals(content.subarray(start, end + 1))).toBe(true)
        }
      }),
      { numRuns: 15, seed: 1 },
    )
  })

  it('say once that they are done: at the end, when left, and when never begun', async () => {
    const onClose = vi.fn()
    await read(0, content.length - 1, onClose)
    expect(onClose).toHaveBeenCalledTimes(1)
    for await (const _ of await FileChunks.open(path, { start: 0, end: content.length - 1, onClose })) break
    expect(onClose).toHaveBeenCalledTimes(2)
    const unread = await FileChunks.open(path, { start: 0, end: 0, onClose })
    await unread.return()
    await unread.return()
    expect(onClose).toHaveBeenCalledTimes(3)
  })

  it('end with an error where the file has become shorter', async () => {
    const onClose = vi.fn()
    const short = join(scratch, 'short')
    writeFileSync(short, content)
    const chunks = await FileChunks.open(short, { start: 0, end: content.length - 1, onClose })
    await chunks.next()
    truncateSync(short, 1_200_000)
    await expect(
      (async () => {
        for await (const _ of chunks);
      })(),
    ).rejects.toThrow('ends at byte 1200000')
    expect(onClose).toHaveBeenCalledTimes(1)
  })
})
