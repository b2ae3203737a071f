import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { mergeAdapter } from '../../../engine/adapter/merge.ts'
import { readAdapter, writeAdapter } from '../../../engine/adapter/peft.ts'
import { Decoder } from '../../../engine/generate/decoder.ts'
import { DEFAULT_SAMPLING } from '../../../engine/generate/sampling-params.ts'
import { Scheduler } from '../../../engine/generate/scheduler.ts'
import { createDetokenizer } from '../../../engine/text/detokenizer.ts'
import { tinyAdapter, tinyLlama } from '../../src/engine-host/tiny-llama.ts'
import { collect, textOf } from './fake-decoder.ts'

const tokens = Int32Array.from({ length: 200 }, (_, i) => 97 + ((i * 7) % 26))

function largestDifference(left: Float32Array, right: Float32Array): number {
  expect(left.length).toBe(right.length)
  return left.reduce((worst, value, i) => Math.max(worst, Math.abs(value - right[i]!)), 0)
}

describe('Decoder', () => {
  const folder = tinyLlama()
  let decoder: Decoder
  beforeAll(async () => {
    decoder = await Decoder.load(folder)
  })
  afterAll(() => decoder.release())

  it('logits do not depend on how the tokens are cut into runs, also where the cache grows', async () => {
    const whole = await decoder.forward(tokens, decoder.createCache())
    for (const size of [1, 7, 127, 128, 199]) {
      const cache = decoder.createCache()
      let logits = new Float32Array(0)
      for (let start = 0; start < tokens.length; start += size) {
        logits = Float32Array.from(await decoder.forward(tokens.slice(start, start + size), cache))
      }
      expect(cache.length).toBe(tokens.length)
      expect(largestDifference(logits, whole)).toBeLessThan(1e-5)
    }
  })

  it('a truncated cache continues as if the forgotten tokens had never been there', async () => {
    const cache = decoder.createCache()
    await decoder.forward(tokens.slice(0, 150), cache)
    cache.truncate(20)
    const continued = await decoder.forward(tokens.slice(150), cache)
    const fresh = decoder.createCache()
    const joined = Int32Array.from([...tokens.slice(0, 20), ...tokens.slice(150)])
    expect(largestDifference(continued, await decoder.forward(joined, fresh))).toBeLessThan(1e-5)
  })

  it('an adapter over the base answers as the merged model does', async () => {
    const adapterFolder = tinyAdapter(folder)
    const adapter = await decoder.loadAdapter(adapterFolder)
    const merged = join(mkdtempSync(join(tmpdir(), 'anneal-merged-')), 'model')
    await mergeAdapter({ baseFolder: folder, adapterFolder, outputFolder: merged })
    const mergedDecoder = await Decoder.load(merged)
    const expected = await mergedDecoder.forward(tokens, mergedDecoder.createCache())
    const actual = await decoder.forward(tokens, decoder.createCache(), adapter)
    const base = await decoder.forward(tokens, decoder.createCache())
    await mergedDecoder.release()
    expect(largestDifference(actual, base)).toBeGreaterThan(0.1)
    expect(largestDifference(actual, expected)).toBeLessThan(1e-3)
  })

  it('answers base and several adapters in one batch, each as it answers alone', async () => {
    const adapters = [undefined, tinyAdapter(folder, 21), tinyAdapter(folder, 22)]
    const loaded = await Promise.all(adapters.map((path) => path && decoder.loadAdapter(path)))
    const requests = loaded.flatMap((adapter) =>
      [40, 150].map((length) => ({ adapter: adapter || undefined, prompt: tokens.slice(0, length) })),
    )
    const ask = async (scheduler: Scheduler, request: (typeof requests)[number]) => {
      const sampling = { ...DEFAULT_SAMPLING, temperature: 1 }
      const text = createDetokenizer({ decode: (ids) => Buffer.from(Array.from(ids)).toString('latin1') })
      const full = { ...request, sampling, seed: 3, maxTokens: 40, stop: [], eosTokenIds: [], text }
      return textOf(await collect(scheduler.submit(full)))
    }
    const together = new Scheduler(decoder, { prefixBytes: 0 })
    const answers = await Promise.all(requests.map((request) => ask(together, request)))
    expect(new Set(answers).size).toBe(requests.length)
    for (const [index, request] of requests.entries()) {
      expect(await ask(new Scheduler(decoder), request)).toBe(answers[index])
    }
  })

  it('refuses tokens beyond the context, with both numbers', async () => {
    const cache = decoder.createCache()
    const request = decoder.forward(new Int32Array(decoder.maxPositions + 1), cache)
    await expect(request).rejects.toMatchObject({ code: 'context_length_exceeded' })
    expect(cache.length).toBe(0)
  })

  it('refuses an adapter of another base, naming the module', async () => {
    const other = tinyAdapter(tinyLlama(3))
    const adapter = readAdapter(other)
    adapter.modules = new Map(
      [...adapter.modules].map(([path, module]) => [path.replace('layers.0', 'layers.7'), module]),
    )
    const strange = mkdtempSync(join(tmpdir(), 'anneal-adapter-'))
    writeAdapter(strange, adapter)
    await expect(decoder.loadAdapter(strange)).rejects.toThrow('model.layers.7.mlp.down_proj')
  })
})
