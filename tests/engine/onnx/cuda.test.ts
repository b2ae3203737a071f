import { existsSync, mkdtempSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Decoder } from '../../../engine/generate/decoder.ts'
import { openModel } from '../../../engine/models/index.ts'
import { Session } from '../../../engine/onnx/session.ts'
import { packBase } from '../../../engine/quant/packed-base.ts'
import { openBase } from '../../../engine/quant/source.ts'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import { objectiveOf } from '../../../engine/train/objectives/index.ts'
import { buildStepGraph } from '../../../engine/train/step-graph.ts'
import { CUDA, cudaForTests } from '../../cuda.ts'
import { relativeToLargest } from '../../parity/reference.ts'
import { NEEDS_SHARED, SHARED, sharedMissing } from '../../shared.ts'
import { tinyLlama } from '../../src/engine-host/tiny-llama.ts'
import { graphsOf } from '../graph/device-graphs.ts'
import { nodesByProvider, runStep } from './device-steps.ts'

const tiny = openModel(join(import.meta.dirname, '../../../data/models/anneal-tiny'))
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
  ] as const)('%s runs to its end, no node of it on the CPU', async (_, more) => {
    const folder = mkdtempSync(join(tmpdir(), 'anneal-profile-'))
    const { loss, gradients } = await runStep(
      { device: CUDA, profilePrefix: join(folder, 'step') },
      tiny,
      more,
    )
    const { CUDAExecutionProvider: nodes, ...others } = nodesByProvider(folder)
    expect(others).toEqual({})
    expect(nodes!.length).toBeGreaterThan(500)
    if (!computes) return
    const cpu = await runStep({}, tiny, more)
    expect(Math.abs(loss - cpu.loss) / cpu.loss).toBeLessThan(1e-3)
    const errors = gradients.map((gradient, index) => relativeToLargest(gradient, cpu.gradients[index]!))
    expect(Math.max(...errors)).toBeLessThan(5e-3)
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
      await (await Session.create(graph, { device: CUDA, weightsFolder: model.folder })).release()
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

const unshared = sharedMissing('golden') ? ` ${NEEDS_SHARED}` : ''
describe.skipIf(missing !== '' || unshared !== '')(`every family on CUDA${missing}${unshared}`, () => {
  const golden = join(SHARED, 'golden')
  const names =
    unshared === '' ? readdirSync(golden).filter((name) => existsSync(join(golden, name, 'model'))) : []
  it.each(names)('%s has a kernel for every node but lists of sizes', async (name) => {
    const model = openModel(join(golden, name, 'model'))
    for (const graph of Object.values(graphsOf(model, false))) {
      const session = await Session.create(graph, { device: CUDA, weightsFolder: model.folder })
      // a session that names nothing is strict: the runtime would have refused any node on the CPU
      for (const node of session.fallbacks) expect(node).toMatch(/^Concat int64/)
      await session.release()
    }
  })
})
