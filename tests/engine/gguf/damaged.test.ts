import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { EngineError } from '../../../engine/errors.ts'
import { importGguf } from '../../../engine/gguf/import.ts'
import { scratchFolder } from '../weights/tiny-model.ts'
import { ggufBytes, type Value } from './gguf-bytes.ts'
import { tinyMetadata, tinyTensors } from './tiny-gguf.ts'

const scratch = scratchFolder()
afterAll(() => rmSync(scratch, { recursive: true }))

const file = join(scratch, 'model.gguf')
const outputFolder = join(scratch, 'out')

/** Imports, and gives the kind of error, or 'whole'. Anything but an EngineError is a fault of the importer. */
async function outcome(bytes: Uint8Array): Promise<string> {
  writeFileSync(file, bytes)
  rmSync(outputFolder, { recursive: true, force: true })
  try {
    await importGguf({ file, outputFolder })
    return 'whole'
  } catch (error) {
    if (!(error instanceof EngineError)) throw error
    expect(existsSync(outputFolder)).toBe(false)
    return error.kind
  }
}

const KINDS = ['whole', 'invalid', 'unsupported', 'too_large']
const original = ggufBytes(tinyMetadata(), tinyTensors())
/** Numbers at which sums and products run over. */
const extremes = fc.constantFrom(0n, 1n, 31n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n)

describe('the import of a damaged file', () => {
  it('ends whole or in an error that was meant, wherever bytes are others', async () => {
    const change = fc.tuple(fc.nat(original.length - 1), fc.nat(255))
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
        const bytes = Buffer.from(original)
        for (const [at, value] of changes) bytes[at] = value
        expect(KINDS).toContain(await outcome(bytes))
      }),
      { numRuns: 100, seed: 3 },
    )
  })

  it('ends so too where any eight bytes are an extreme number', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(original.length - 8), extremes, async (at, value) => {
        const bytes = Buffer.from(original)
        bytes.writeBigUInt64LE(value, at)
        expect(KINDS).toContain(await outcome(bytes))
      }),
      { numRuns: 100, seed: 4 },
    )
  })

  it('ends so too where a value of the metadata is of any type and size', async () => {
    const values: fc.Arbitrary<Value> = fc.oneof(
      extremes.map((value) => ({ u64: value })),
      fc.constantFrom(0, 1, 3, 2 ** 31, 2 ** 32 - 1).map((value) => ({ u32: value })),
      fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, -1, 0, 1e30).map((value) => ({ f32: value })),
      fc.boolean().map((value) => ({ flag: value })),
      fc.string().map((value) => ({ text: value })),
      fc.array(fc.string(), { maxLength: 8 }).map((value) => ({ texts: value })),
      fc.array(fc.integer(), { maxLength: 8 }).map((value) => ({ i32s: value })),
    )
    const keys = Object.keys(tinyMetadata())
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...keys), values, async (key, value) => {
        const bytes = ggufBytes(tinyMetadata('llama', { [key]: value }), tinyTensors())
        expect(KINDS).toContain(await outcome(bytes))
      }),
      { numRuns: 100, seed: 5 },
    )
  })

  it('is refused at every length short of the whole', async () => {
    // The last tensor ends before the padding that follows it.
    const end = original.length - 32
    for (let length = 0; length < end; length += 29) {
      expect(await outcome(original.subarray(0, length)), String(length)).toBe('invalid')
    }
  })
})
