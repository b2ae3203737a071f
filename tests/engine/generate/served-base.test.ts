import { cpSync, mkdtempSync, readdirSync, rmSync, utimesSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Decoder } from '../../../engine/generate/decoder.ts'
import { Scheduler } from '../../../engine/generate/scheduler.ts'
import type { ServedWeights } from '../../../engine/generate/served-weights.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'
import { collect, fakeRequest } from './fake-decoder.ts'

const tokens = Int32Array.from({ length: 96 }, (_, i) => 40 + ((i * 29) % 700))
let packedFolder: string
beforeAll(() => {
  packedFolder = mkdtempSync(join(tmpdir(), 'anneal-packed-'))
})
afterAll(() => rmSync(packedFolder, { recursive: true }))

async function withDecoder<T>(
  weights: ServedWeights,
  use: (decoder: Decoder) => Promise<T>,
  folder = ANNEAL_TINY,
) {
  const decoder = await Decoder.load(folder, { weights, packedFolder })
  try {
    return await use(decoder)
  } finally {
    await decoder.release()
  }
}

const logitsOf = (weights: ServedWeights) =>
  withDecoder(weights, (decoder) => decoder.forward(tokens, decoder.createCache()))

/** Largest difference over the largest value. */
function relative(actual: Float32Array, expected: Float32Array): number {
  const largest = (values: Float32Array) =>
    values.reduce((worst, value) => Math.max(worst, Math.abs(value)), 0)
  return largest(actual.map((value, i) => value - expected[i]!)) / largest(expected)
}

describe('quantized serving', () => {
  it('stays near the unquantized logits, at 8 bits nearer than at 4', async () => {
    const exact = await logitsOf('float32')
    const [eight, four] = [relative(await logitsOf('int8'), exact), relative(await logitsOf('int4'), exact)]
    expect(eight).toBeGreaterThan(0)
    expect(eight).toBeLessThan(0.05)
    expect(four).toBeGreaterThan(eight)
    expect(four).toBeLessThan(0.5)
  })

  it('packs a base once, and anew when its weights were written anew', async () => {
    const folder = join(packedFolder, 'copy')
    cpSync(ANNEAL_TINY, folder, { recursive: true })
    const packs = () => readdirSync(packedFolder).filter((name) => name.endsWith('-int8-32')).length
    const before = packs()
    const load = () => withDecoder('int8', async () => packs(), folder)
    expect([await load(), await load()]).toEqual([before + 1, before + 1])
    for (const file of readdirSync(folder)) utimesSync(join(folder, file), 1, 2)
    expect(await load()).toBe(before + 2)
  })

  it('answers the same in a batch as alone: no row’s rounding depends on another', async () => {
    await withDecoder('int8', async (decoder) => {
      const ask = async (scheduler: Scheduler, length: number) => {
        const request = fakeRequest('', { prompt: tokens.slice(0, length), maxTokens: 24, eosTokenIds: [] })
        const events = await collect(
          scheduler.submit({ ...request, text: { push: String, flush: () => '' } }),
        )
        return events.flatMap((event) => (event.type === 'text' ? event.tokenIds : []))
      }
      const lengths = [5, 17, 40, 90]
      const together = new Scheduler(decoder, { prefixBytes: 0 })
      const answers = await Promise.all(lengths.map((length) => ask(together, length)))
      for (const [index, length] of lengths.entries()) {
        expect(await ask(new Scheduler(decoder), length)).toEqual(answers[index])
      }
    })
  })
})
