import { existsSync, mkdtempSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { exportSafetensors } from '../../../engine/export/safetensors.ts'
import { Decoder } from '../../../engine/generate/decoder.ts'
import { buildDecoderGraph } from '../../../engine/generate/decoder-graph.ts'
import { Encoder } from '../../../engine/generate/encoder.ts'
import { Scheduler } from '../../../engine/generate/scheduler.ts'
import { openModel } from '../../../engine/models/index.ts'
import { Session } from '../../../engine/onnx/session.ts'
import { packBase } from '../../../engine/quant/packed-base.ts'
import { openBase } from '../../../engine/quant/source.ts'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import { objectiveOf } from '../../../engine/train/objectives/index.ts'
import { buildStepGraph } from '../../../engine/train/step-graph.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'
import { asOnCuda } from '../../bfloat16-products.ts'
import { CUDA, cudaForTests, standInBytes } from '../../cuda.ts'
import { readCase, writeModel } from '../../parity/families/reference-model.ts'
import { relativeToLargest } from '../../parity/reference.ts'
import { SHARED, sharedMissing } from '../../shared.ts'
import { tinyAdapter, tinyLlama } from '../../src/engine-host/tiny-llama.ts'
import { collect, fakeRequest } from '../generate/fake-decoder.ts'
import { graphsOf } from '../graph/device-graphs.ts'
import { nodesByProvider, runStep } from './device-steps.ts'

const tiny = openModel(ANNEAL_TINY)
const { missing, computes } = await cudaForTests()

describe.skipIf(missing !== '')(`the engine on CUDA${missing}`, () => {
  it.each([
    ['a step', {}],
    ['a step with fp16', { checkpointing: false, halfActivations: true }],
    [
      'a step with DoRA and dropout',
      { method: { kind: 'lora', rank: 4, scale: 2, dropout: 0.1, targets: 'all', dora: true } },
    ],
    ['a full step', { method: { kind: 'full' } }],
    ['a step with bf16', {}, true],
    ['a step with bf16, which keeps what layers make', { checkpointing: false }, true],
    [
      'a step with bf16 and DoRA',
      { method: { kind: 'lora', rank: 4, scale: 2, dropout: 0.1, targets: 'all', dora: true } },
      true,
    ],
  ] as const)('%s runs to its end, no node of it on the CPU', async (_, more, bfloat16?: boolean) => {
    const folder = mkdtempSync(join(tmpdir(), 'anneal-profile-'))
    const { loss, gradients } = await runStep(
      { device: CUDA, bfloat16, profilePrefix: join(folder, 'step') },
      tiny,
      more,
    )
    const { CUDAExecutionProvider: nodes, ...others } = nodesByProvider(folder)
    expect(others).toEqual({})
    expect(nodes!.length).toBeGreaterThan(500)
    if (!computes) return
    const cpu = await runStep(bfloat16 ? { lowering: asOnCuda } : {}, tiny, more)
    expect(Math.abs(loss - cpu.loss) / cpu.loss).toBeLessThan(1e-3)
    const errors = gradients.map((gradient, index) => relativeToLargest(gradient, cpu.gradients[index]!))
    expect(Math.max(...errors)).toBeLessThan(bfloat16 ? 5e-2 : 5e-3)
  })

  it.each(['nf4', 'int4', 'int8'] as const)(
    'a step over a base held as %s runs to its end there',
    async (scheme) => {
      const folder = mkdtempSync(join(tmpdir(), 'anneal-packed-'))
      const source = openModel(tinyLlama())
      const packed = await packBase(openBase(source.folder), { scheme, folder })
      const model = { ...source, folder, weights: packed.weights }
      const { loss } = await runStep({ device: CUDA }, model)
      if (computes) expect(loss).toBeCloseTo((await runStep({}, model)).loss, 2)
    },
  )

  const stages = [
    { stage: 'sft', compute_accuracy: true },
    { stage: 'rm' },
    { stage: 'kto' },
    ...['sigmoid', 'hinge', 'ipo', 'orpo', 'simpo'].map((pref_loss) => ({ stage: 'dpo', pref_loss })),
  ]
  it.each(stages)('a step of $stage $pref_loss has a kernel there for every node', async (fields) => {
    const objective = objectiveOf(parseTrainConfig({ model: 'tiny', dataset: 'set', ...fields }))
    const model = openModel(tinyLlama())
    const options = {
      method: { kind: 'full' },
      objective,
      maxLength: 64,
      initialize: () => new Float32Array(),
    }
    for (const purpose of ['training', 'evaluation'] as const) {
      const { graph } = buildStepGraph(model, options as never, purpose)
      for (const bfloat16 of [false, true]) {
        const where = { device: CUDA, bfloat16, weightsFolder: model.folder }
        await (await Session.create(graph, where)).release()
      }
    }
  })

  it.each(['float32', 'int8', 'int4'] as const)('tokens are decoded over weights of %s', async (weights) => {
    const logits: Float32Array[] = []
    for (const device of computes ? [CUDA, { kind: 'cpu' } as const] : [CUDA]) {
      const packedFolder = mkdtempSync(join(tmpdir(), 'anneal-packed-'))
      const decoder = await Decoder.load(tiny.folder, { device, weights, packedFolder })
      const cache = decoder.createCache()
      await decoder.forward(Int32Array.of(5, 96, 187, 278), cache)
      logits.push(await decoder.forward(Int32Array.of(369), cache))
      await decoder.release()
    }
    expect(logits[0]).toHaveLength(tiny.config.vocabSize)
    if (computes) expect(relativeToLargest(logits[0]!, logits[1]!)).toBeLessThan(1e-2)
  })
})

describe.skipIf(missing !== '')(`answers on CUDA${missing}`, () => {
  it('a batch with adapters is answered, and a text has a vector', async () => {
    const folder = tinyLlama()
    const decoder = await Decoder.load(folder, { device: CUDA, adapters: 'plain' })
    const scheduler = new Scheduler(decoder, { maxRunning: 2 })
    const adapters = [undefined, ...[21, 22].map((seed) => tinyAdapter(folder, seed))]
    const finished = adapters.map(async (path, index) => {
      const adapter = path === undefined ? {} : { adapter: await decoder.loadAdapter(path) }
      const request = fakeRequest('a'.repeat(50 - index), {
        maxTokens: 3 + index,
        eosTokenIds: [],
        ...adapter,
      })
      return (await collect(scheduler.submit(request))).at(-1)
    })
    expect(await Promise.all(finished)).toMatchObject(
      [3, 4, 5].map((completionTokens) => ({ type: 'finish', reason: 'length', completionTokens })),
    )
    await decoder.release()
    const encoder = new Encoder(folder, { device: CUDA, maxTokens: 64 })
    expect(await encoder.embed(Int32Array.of(97, 98, 99), adapters[1])).toHaveLength(16)
    await encoder.release()
  })
})

describe.skipIf(missing !== '' || computes)(
  `what travels on CUDA${missing || (computes ? ' (skipped: a GPU does not count)' : '')}`,
  () => {
    it('is tokens there and logits back: caches and adapters stay, and caches are written in place', async () => {
      const decoder = await Decoder.load(ANNEAL_TINY, { device: CUDA, adapters: 'plain' })
      const { layers, keyValueHeads, headDim } = decoder.cacheShape
      const cacheBytes = 2 * layers * keyValueHeads * 4096 * headDim * 4
      const { linears } = buildDecoderGraph(tiny, { maxPositions: 64, adapters: 'plain' })
      const rank = 64
      const modules = linears.map(({ path, inFeatures, outFeatures }) => {
        const [a, b] = [inFeatures, outFeatures].map((width) => new Float32Array(rank * width))
        return [path, { rank, a: a!, b: b!, outputScale: null }] as const
      })
      const adapter = { key: 'zeros', rank, scaled: false, modules: new Map(modules) }
      const adapterBytes = linears.reduce((sum, m) => sum + 4 * rank * (m.inFeatures + m.outFeatures), 0)
      const cache = decoder.createCache(4096)
      await decoder.forward(Int32Array.of(5, 96), cache, adapter)
      const before = standInBytes()
      await decoder.forward(Int32Array.of(187), cache, adapter)
      const after = standInBytes()
      expect(after.fromDevice - before.fromDevice).toBe(4 * decoder.vocabSize)
      // of the 4096 places their numbers, 8 bytes each
      const sent = after.toDevice - before.toDevice - 8 * 4096
      expect(sent).toBeLessThan(adapterBytes / 10)
      expect(sent).toBeLessThan(cacheBytes / 100)
      expect(after.withinDevice - before.withinDevice).toBeLessThan(cacheBytes / 100)
      expect(after.most - before.most).toBeLessThan(cacheBytes / 2) // they are not there twice
      cache.dispose()
      await decoder.release()
    })
  },
)

/** Folders of small models of every family, by name; the ones beside the checkout where those are. */
function familyFolders(): [string, string][] {
  const cases = join(import.meta.dirname, '../../parity/families')
  const scratch = mkdtempSync(join(tmpdir(), 'anneal-families-'))
  const written = readdirSync(cases)
    .filter((file) => file.endsWith('.json'))
    .map((file) => file.replace(/\.json$/, ''))
    .map((name): [string, string] => [name, writeModel(join(scratch, name), readCase(name))])
  const golden = join(SHARED, 'golden')
  const shared = sharedMissing('golden') ? [] : readdirSync(golden)
  return [...written, ...shared.map((name): [string, string] => [name, join(golden, name, 'model')])].filter(
    ([, folder]) => existsSync(folder),
  )
}

describe.skipIf(missing !== '')(`every family on CUDA${missing}`, () => {
  const folders = missing === '' ? familyFolders() : []
  it.each(folders)('%s has a kernel for every node but lists of sizes', async (_, folder) => {
    const rounded = join(mkdtempSync(join(tmpdir(), 'anneal-rounded-')), 'model')
    await exportSafetensors({ modelFolder: folder, outputFolder: rounded, dtype: 'bfloat16' })
    for (const [weightsFolder, bfloat16] of [
      [folder, false],
      [rounded, true],
    ] as const) {
      for (const graph of Object.values(graphsOf(openModel(weightsFolder)))) {
        const session = await Session.create(graph, { device: CUDA, bfloat16, weightsFolder })
        // a session that names nothing is strict: the runtime would have refused any node on the CPU
        for (const node of session.fallbacks) expect(node).toMatch(/^Concat int64/)
        await session.release()
      }
    }
  })
})
