import { expect, it, vi } from 'vitest'
import { Decoder } from '../../../engine/generate/decoder.ts'
import { CacheKernels, DeviceCache } from '../../../engine/generate/device-cache.ts'
import { DEFAULT_SAMPLING } from '../../../engine/generate/sampling-params.ts'
import { Scheduler } from '../../../engine/generate/scheduler.ts'
import { GraphBuilder } from '../../../engine/graph/builder.ts'
import { CPU, type Device } from '../../../engine/onnx/device.ts'
import { DeviceTensor, Session } from '../../../engine/onnx/session.ts'
import { floatTensor } from '../../../engine/tensor.ts'
import { createDetokenizer } from '../../../engine/text/detokenizer.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'
import { relativeToLargest } from '../../parity/reference.ts'
import { tinyAdapter, tinyLlama } from '../../src/engine-host/tiny-llama.ts'
import { collect, textOf } from '../generate/fake-decoder.ts'

/** What must hold on every device that keeps tensors between runs, beside the CPU, which is fed with them. */
export function keptTensorTests(kept: Device): void {
  it('tokens decoded over a cache that stays on the device have the logits of the CPU', async () => {
    const tokens = Int32Array.from({ length: 12 }, (_, i) => 5 + ((i * 91) % 2000))
    const logits: Float32Array[] = []
    for (const device of [CPU, kept]) {
      const decoder = await Decoder.load(ANNEAL_TINY, { device })
      const cache = decoder.createCache()
      await decoder.forward(tokens.subarray(0, 8), cache)
      await decoder.forward(tokens.subarray(8, 11), cache)
      cache.truncate(9)
      await decoder.forward(tokens.subarray(9, 11), cache)
      logits.push(await decoder.forward(tokens.subarray(11), cache))
      cache.dispose()
      await decoder.release()
    }
    expect(relativeToLargest(logits[1]!, logits[0]!)).toBeLessThan(1e-4)
  })

  it('a cache grows, and takes a row of another, without losing what it holds', async () => {
    const kernels = await CacheKernels.create(kept, { layers: 1, keyValueHeads: 2, headDim: 4 })
    const g = new GraphBuilder()
    const read = g.Detach(g.input('cache.0', 'float32', ['slots', 2, 'places', 4]))
    const reader = await Session.create(g.finish([read]), { device: kept, keepOnDevice: [] })
    const contentOf = async (cache: DeviceCache) => (await reader.run(await cache.feeds()))[read.name]!.data
    const filler = new GraphBuilder()
    const filled = filler.Add(filler.input('x', 'float32', [2, 2, 8, 4]), filler.scalar(1))
    const options = { device: kept, keepOnDevice: [filled.name] }
    const fill = await Session.create(filler.finish([filled]), options)
    const x = floatTensor(
      Float32Array.from({ length: 128 }, (_, i) => i),
      [2, 2, 8, 4],
    )
    const make = async () => (await fill.runKeeping({ x })).kept[filled.name]!

    const first = new DeviceCache(kernels)
    first.resize(2, 8)
    await first.feeds()
    first.adopt([await make(), await make()])
    first.resize(3, 16)
    const second = new DeviceCache(kernels)
    second.resize(1, 16)
    second.copySlot(0, first, 1, 8)
    first.dispose() // what was asked for before still happens
    const content = Array.from(await contentOf(second), Number)
    for (const head of [0, 1]) {
      const rows = content.slice(head * 64, head * 64 + 64)
      expect(rows.slice(0, 32)).toEqual(Array.from({ length: 32 }, (_, i) => 65 + head * 32 + i))
      expect(rows.slice(32)).toEqual(new Array(32).fill(0))
    }
    second.dispose()
    await kernels.settle()
    for (const each of [reader, fill, kernels]) await each.release()
  })

  it('what an earlier request began with stays in its slot, for whoever begins alike, and is no one else’s', async () => {
    const folder = tinyLlama()
    const adapterFolder = tinyAdapter(folder, 41)
    const prompt = (length: number, shift = 0) =>
      Int32Array.from({ length }, (_, i) => 97 + ((i * 7 + (i > 39 ? shift : 0)) % 26))
    const answers: unknown[][] = []
    const spared: number[][] = []
    for (const device of [CPU, kept]) {
      const decoder = await Decoder.load(folder, { device, adapters: 'plain' })
      const adapter = await decoder.loadAdapter(adapterFolder)
      const scheduler = new Scheduler(decoder, { maxRunning: 3 })
      const cached: number[] = []
      const ask = async (tokens: Int32Array, more: { adapter?: typeof adapter } = {}) => {
        const text = createDetokenizer({ decode: (ids) => Buffer.from(Array.from(ids)).toString('latin1') })
        const sampling = { ...DEFAULT_SAMPLING, temperature: 0 }
        const rest = { seed: 3, maxTokens: 5, stop: [], eosTokenIds: [], text, ...more }
        const events = await collect(scheduler.submit({ prompt: tokens, sampling, ...rest }))
        for (const event of events) if (event.type === 'finish') cached.push(event.cachedTokens)
        return textOf(events)
      }
      const texts = [await ask(prompt(50))] // nothing is known yet
      texts.push(await ask(prompt(58))) // goes on in the very slot
      texts.push(await ask(prompt(58, 5))) // parts from it at token 40
      texts.push(await ask(prompt(140))) // a longer row, in a wider group: copied
      texts.push(await ask(prompt(58), { adapter })) // another adapter's
      texts.push(...(await Promise.all([0, 1, 2].map((shift) => ask(prompt(60, shift)))))) // at once
      answers.push(texts)
      spared.push(cached)
      await decoder.release()
    }
    expect(answers[1]).toEqual(answers[0])
    const [, onDevice] = spared as [number[], number[]]
    expect(onDevice.slice(0, 5)).toEqual([0, 50, 40, 40, 0])
    for (const count of onDevice.slice(5)) expect(count).toBeGreaterThanOrEqual(40)
  })

  it("an adapter's weights go to the device once, and again only when other adapters join", async () => {
    const folder = tinyLlama()
    const decoder = await Decoder.load(folder, { device: kept, adapters: 'plain' })
    const [first, second] = await Promise.all(
      [31, 32].map((seed) => decoder.loadAdapter(tinyAdapter(folder, seed))),
    )
    const sent = vi.spyOn(Session.prototype, 'runKeeping')
    const steps = async (...adapters: (typeof first)[]) => {
      sent.mockClear()
      for (const adapter of adapters) await decoder.forward(Int32Array.of(97), decoder.createCache(), adapter)
      return sent.mock.calls
        .map(([feeds]) => feeds)
        .filter((feeds) => Object.keys(feeds).some((name) => name.includes('lora')))
        .map((feeds) => Object.values(feeds).filter((feed) => feed instanceof DeviceTensor).length)
    }
    const [upload, ...runs] = await steps(first, first, first)
    expect(upload).toBe(0)
    expect(runs).toHaveLength(3)
    for (const count of runs) expect(count).toBeGreaterThan(10) // both matrices of each module, and the caches
    const again = await steps(first, second, first, second)
    expect(again.map((count) => count > 0)).toEqual([true, false, true, true, true])
    expect((await steps(undefined)).length).toBeGreaterThan(0) // none at all: nothing to send, and nothing breaks
    sent.mockRestore()
    await decoder.release()
  })

  it('answers of a batch with adapters, whose rows join and leave, are the ones of the CPU', async () => {
    const folder = tinyLlama()
    const adapterFolders = [undefined, tinyAdapter(folder, 21), tinyAdapter(folder, 22)]
    const answers: string[][] = []
    for (const device of [CPU, kept]) {
      const decoder = await Decoder.load(folder, { device, adapters: 'plain' })
      const adapters = await Promise.all(adapterFolders.map((path) => path && decoder.loadAdapter(path)))
      const scheduler = new Scheduler(decoder, { maxRunning: 2, prefixBytes: 0 })
      const ask = async (adapter: (typeof adapters)[number], index: number) => {
        const text = createDetokenizer({ decode: (ids) => Buffer.from(Array.from(ids)).toString('latin1') })
        const prompt = Int32Array.from({ length: 120 - index }, (_, i) => 97 + ((i * 7) % 26))
        const sampling = { ...DEFAULT_SAMPLING, temperature: index === 2 ? 1 : 0 }
        const more = { seed: 3, maxTokens: 3 + 3 * index, stop: [], eosTokenIds: [], text }
        return textOf(
          await collect(scheduler.submit({ prompt, sampling, ...(adapter ? { adapter } : {}), ...more })),
        )
      }
      answers.push(await Promise.all(adapters.map((adapter, index) => ask(adapter || undefined, index))))
      await decoder.release()
    }
    expect(answers[1]).toEqual(answers[0])
    expect(new Set(answers[0]).size).toBe(3)
  })

  it('guesses ahead over a cache on the device, and answers as the CPU does without', async () => {
    const folder = tinyLlama()
    const prompt = Int32Array.from({ length: 20 }, (_, i) => 97 + ((i * 7) % 26))
    const sampling = { ...DEFAULT_SAMPLING, temperature: 0 }
    let answer: number[] = []
    let accepted = 0
    for (const device of [CPU, kept]) {
      const decoder = await Decoder.load(folder, { device })
      const scheduler = new Scheduler(decoder, { prefixBytes: 0 })
      const text = createDetokenizer({ decode: (ids) => Buffer.from(Array.from(ids)).toString('latin1') })
      const prediction = Int32Array.from(answer, (token, at) => (at === 5 ? token ^ 1 : token))
      const request = { prompt, sampling, maxTokens: 16, stop: [], eosTokenIds: [], text }
      const tokens: number[] = []
      for await (const event of scheduler.submit({ ...request, ...(answer.length > 0 && { prediction }) })) {
        if (event.type === 'text') tokens.push(...(event.tokenIds ?? []))
        if (event.type === 'finish') accepted = event.guessed?.accepted ?? 0
      }
      if (answer.length === 0) answer = tokens
      expect(tokens).toEqual(answer)
      await decoder.release()
    }
    expect(accepted).toBeGreaterThan(6)
  })
}
