import { afterEach, describe, expect, it } from 'vitest'
import { initializeLora } from '../../../engine/adapter/initialize.ts'
import type { Node } from '../../../engine/graph/graph.ts'
import { openModel } from '../../../engine/models/index.ts'
import { packExamples } from '../../../engine/text/packing.ts'
import { collate } from '../../../engine/train/batch.ts'
import { CompiledStep, type CompiledStepOptions } from '../../../engine/train/compiled-step.ts'
import type { TokenBatch } from '../../../engine/train/step.ts'
import { buildStepGraph } from '../../../engine/train/step-graph.ts'
import type { TrainingMethod } from '../../../engine/train/training-method.ts'
import { relativeToLargest } from '../../parity/reference.ts'
import { tinyLlama } from '../../src/engine-host/tiny-llama.ts'

const folder = tinyLlama()
const lora = { kind: 'lora', rank: 2, scale: 2, dropout: 0, targets: 'all' } as const
const opened: CompiledStep[] = []

async function compile(
  method: TrainingMethod,
  initialize: CompiledStepOptions['initialize'] = initializeLora(1),
  more: Partial<CompiledStepOptions> = {},
): Promise<CompiledStep> {
  const step = await CompiledStep.create(openModel(folder), { method, maxLength: 64, initialize, ...more })
  opened.push(step)
  return step
}

/** Rows of different lengths whose first two tokens are the prompt. */
function batchOf(lengths: readonly number[], padId = 0): TokenBatch {
  const examples = lengths.map((length, row) => {
    const inputIds = Int32Array.from({ length }, (_, i) => 97 + ((i * 5 + row) % 26))
    return { inputIds, labels: inputIds.map((id, i) => (i < 2 ? -100 : id)) }
  })
  return collate(examples, padId)
}

/** B away from its zero start, so that every gradient is alive. */
const stirred = (name: string, shape: readonly number[]) =>
  initializeLora(3)(name.replace('lora_B', 'lora_A'), shape)

afterEach(async () => {
  for (const step of opened.splice(0)) await step.release()
})

describe('CompiledStep', () => {
  it('a fresh adapter leaves the loss of the base unchanged, and only B has a gradient', async () => {
    const step = await compile(lora)
    const batch = batchOf([12])
    const { loss, gradients } = await step.run(batch, 1 / batch.labels.length)
    const base = await compile({ ...lora, targets: ['q_proj'] })
    expect(loss).toBeCloseTo((await base.evaluate(batch, 1 / batch.labels.length)).loss, 5)
    step.parameters.forEach(({ name }, index) => {
      const alive = gradients[index]!.some((value) => value !== 0)
      expect(alive).toBe(name.includes('lora_B'))
    })
  })

  it('padding changes neither loss nor gradients, whatever token it is', async () => {
    const step = await compile(lora, stirred)
    const weight = 1 / 50
    const together = await step.run(batchOf([12, 7]), weight)
    const otherPad = await step.run(batchOf([12, 7], 200), weight)
    expect(otherPad.loss).toBe(together.loss)
    expect(otherPad.gradients).toEqual(together.gradients)
  })

  it('the gradient of a batch is the sum of its rows', async () => {
    const step = await compile(lora, stirred)
    const both = batchOf([10, 10])
    const weight = 1 / both.labels.length
    const whole = await step.run(both, weight)
    const half = both.length
    const row = (index: number): TokenBatch => ({
      rows: 1,
      length: both.length,
      inputIds: both.inputIds.slice(index * half, (index + 1) * half),
      trainedPositions: both.trainedPositions
        .filter((place) => Number(place) >= index * half && Number(place) < (index + 1) * half)
        .map((place) => place - BigInt(index * half)),
      labels: both.labels.filter((_, i) => Math.floor(Number(both.trainedPositions[i]) / half) === index),
      tokens: half,
    })
    const parts = [await step.run(row(0), weight), await step.run(row(1), weight)]
    expect(parts[0]!.loss + parts[1]!.loss).toBeCloseTo(whole.loss, 5)
    whole.gradients.forEach((gradient, index) => {
      const [a, b] = parts.map((part) => part.gradients[index]!)
      gradient.forEach((value, i) => {
        expect(value).toBeCloseTo(a![i]! + b![i]!, 5)
      })
    })
  })

  it('dropout is fixed by its seed, differs between seeds and is off in evaluation', async () => {
    const step = await compile({ ...lora, dropout: 0.5 }, stirred)
    const batch = batchOf([16])
    const weight = 1 / batch.labels.length
    const [first, again, other] = [
      await step.run(batch, weight, 11),
      await step.run(batch, weight, 11),
      await step.run(batch, weight, 12),
    ]
    expect(again).toEqual(first)
    expect(other.loss).not.toBe(first.loss)
    const plain = await compile(lora, stirred)
    expect(await step.evaluate(batch, weight)).toEqual(await plain.evaluate(batch, weight))
  })

  it.each(['lora', 'full'] as const)('checkpointing changes no bit of the gradients of %s', async (kind) => {
    const method = kind === 'full' ? ({ kind } as const) : { ...lora, dropout: 0.5 }
    const model = openModel(folder)
    const initialize = kind === 'full' ? (name: string) => model.weights.readFloat32(name) : stirred
    const options = { method, maxLength: 64, initialize }
    const batch = batchOf([16, 11])
    const results = []
    for (const checkpointing of [false, true]) {
      const step = await CompiledStep.create(model, { ...options, checkpointing })
      opened.push(step)
      results.push(await step.run(batch, 1 / batch.labels.length, 5))
    }
    expect(results[1]).toEqual(results[0])
  })

  it('noise on the embeddings is fixed by its seed and off in evaluation; shifted attention too', async () => {
    const batch = batchOf([16])
    const weight = 1 / batch.labels.length
    const plain = await compile(lora, stirred)
    const usual = await plain.evaluate(batch, weight)
    const noisy = await compile(lora, stirred, { neftuneAlpha: 5 })
    const [first, again, other] = [
      await noisy.run(batch, weight, 11),
      await noisy.run(batch, weight, 11),
      await noisy.run(batch, weight, 12),
    ]
    expect(again).toEqual(first)
    expect(other.loss).not.toBe(first.loss)
    expect(first.loss).not.toBe(usual.loss)
    expect(await noisy.evaluate(batch, weight)).toEqual(usual)
    const shifted = await compile(lora, stirred, { shiftAttention: true })
    expect((await shifted.run(batchOf([13]), weight)).loss).not.toBeCloseTo(
      (await plain.run(batchOf([13]), weight)).loss,
      4,
    )
    expect(await shifted.evaluate(batch, weight)).toEqual(usual)
  })

  it('freezing trains only what it selects, with the gradients of full training', async () => {
    const read = (name: string) => openModel(folder).weights.readFloat32(name)
    const batch = batchOf([12])
    const full = await compile({ kind: 'full' }, read)
    const some = await compile({ kind: 'full', trains: (name) => name.includes('.mlp.') }, read)
    const whole = await full.run(batch, 1)
    const part = await some.run(batch, 1)
    expect(some.parameters.length).toBeGreaterThan(0)
    expect(some.parameters.length).toBeLessThan(full.parameters.length)
    some.parameters.forEach(({ name }, index) => {
      const place = full.parameters.findIndex((parameter) => parameter.name === name)
      expect(name).toContain('.mlp.')
      part.gradients[index]!.forEach((value, i) => {
        expect(value).toBeCloseTo(whole.gradients[place]![i]!, 5)
      })
    })
  })

  it.each([2, 3, 40])(
    'a loss in %d chunks is the whole one, also where chunks are empty',
    async (lossChunks) => {
      const batch = batchOf([16, 11])
      const weight = 1 / batch.labels.length
      const whole = await (await compile(lora, stirred)).run(batch, weight)
      const options = { method: lora, maxLength: 64, initialize: stirred, lossChunks }
      const step = await CompiledStep.create(openModel(folder), options)
      opened.push(step)
      const { loss, gradients } = await step.run(batch, weight)
      expect(loss).toBeCloseTo(whole.loss, 5)
      for (const [index, gradient] of gradients.entries()) {
        gradient.forEach((value, i) => {
          expect(value).toBeCloseTo(whole.gradients[index]![i]!, 5)
        })
      }
    },
  )

  it('examples that are packed apart train as if each were alone', async () => {
    const alone = [7, 12, 5, 9].map((length, row) => {
      const inputIds = Int32Array.from({ length }, (_, i) => 97 + ((i * 5 + row) % 26))
      return { inputIds, labels: inputIds.slice() }
    })
    const { packed } = packExamples(alone, { cutoffLength: 20, neatPacking: true })
    expect(packed.map((sequence) => sequence.packed)).toEqual([
      [12, 7],
      [9, 5],
    ])
    const separate = await (await compile(lora, stirred)).run(collate(alone, 0), 1 / 29)
    const step = await compile(lora, stirred, { packedApart: true })
    const together = await step.run(collate(packed, 0), 1 / 29)
    expect(together.loss).toBeCloseTo(separate.loss, 5)
    for (const [index, gradient] of together.gradients.entries()) {
      gradient.forEach((value, i) => {
        expect(value).toBeCloseTo(separate.gradients[index]![i]!, 5)
      })
    }
    const mixed = await (await compile(lora, stirred)).run(collate(packed, 0), 1 / 29)
    expect(mixed.loss).not.toBeCloseTo(separate.loss, 4)
  })

  it('a batch without a trained label costs nothing and moves nothing', async () => {
    const step = await compile(lora)
    const batch = batchOf([2])
    expect(batch.labels).toHaveLength(0)
    const { loss, gradients } = await step.run(batch, 1)
    expect(loss).toBe(0)
    expect(gradients.every((gradient) => gradient.every((value) => value === 0))).toBe(true)
  })

  it('an unknown target is an error that lists the known ones', async () => {
    await expect(compile({ ...lora, targets: ['q_proj', 'wq'] })).rejects.toMatchObject({
      param: 'lora_target',
      message: expect.stringMatching(/wq.*q_proj, k_proj/),
    })
  })
})

describe('halfActivations', () => {
  const graphOf = (more: Partial<CompiledStepOptions>, purpose: 'training' | 'evaluation' = 'training') => {
    const options = { method: { ...lora, dora: true }, maxLength: 64, initialize: stirred, ...more }
    return buildStepGraph(openModel(folder), { halfActivations: true, ...options }, purpose).graph
  }
  const half = (nodes: readonly Node[]) =>
    nodes.flatMap(({ outputs }) => outputs).filter(({ dtype }) => dtype === 'float16')

  it('keeps as float16 what the backward pass reads of each layer, and nothing that norms read or that is as large as a weight', () => {
    const { nodes } = graphOf({})
    const kept = half(nodes)
    expect(kept.length).toBeGreaterThan(10)
    for (const { shape } of kept) expect(shape.some((dim) => typeof dim === 'string')).toBe(true)
    const normed = nodes.filter(({ op }) => op === 'SimplifiedLayerNormalization')
    expect(normed.length).toBeGreaterThan(2)
    const names = new Set(kept.map(({ name }) => name.replace('/half', '')))
    for (const { inputs } of normed) expect(names).not.toContain(inputs[0]!.name)
    // neither pass reads the float32 original, so that it need not live beside
    for (const name of names) {
      const readers = nodes.filter(({ inputs }) => inputs.some((input) => input?.name === name))
      expect(readers.map(({ op }) => op)).toEqual(['Cast'])
    }
  })

  it('changes nothing where nothing is kept: in evaluation, and where layers are computed again', () => {
    expect(half(graphOf({}, 'evaluation').nodes)).toEqual([])
    expect(half(graphOf({ checkpointing: true }).nodes)).toEqual([])
  })

  it('moves loss and gradients by no more than the rounding', async () => {
    const batch = batchOf([40, 23])
    const weight = 1 / batch.labels.length
    const gentle = (name: string, shape: readonly number[]) =>
      stirred(name, shape).map((value) => (name.includes('lora_B') ? value / 10 : value))
    const [exact, rounded] = await Promise.all(
      [false, true].map(async (halfActivations) =>
        (await compile(lora, gentle, { halfActivations })).run(batch, weight),
      ),
    )
    expect(rounded!.loss).not.toBe(exact!.loss)
    expect(Math.abs(rounded!.loss - exact!.loss) / exact!.loss).toBeLessThan(1e-3)
    for (const [index, gradient] of rounded!.gradients.entries()) {
      // some twenty roundings of 2^-11
      expect(relativeToLargest(gradient, exact!.gradients[index]!)).toBeLessThan(1e-2)
    }
  })

  it('a number beyond float16 is an infinite gradient, which training refuses, and no wrong one', async () => {
    const huge = (name: string, shape: readonly number[]) =>
      stirred(name, shape).map((value) => (name.includes('up_proj') ? value * 1e6 : value))
    const batch = batchOf([12])
    const run = async (halfActivations: boolean) =>
      (await compile(lora, huge, { halfActivations })).run(batch, 1 / batch.labels.length)
    const finite = ({ gradients }: { gradients: Float32Array[] }) =>
      gradients.every((gradient) => gradient.every(Number.isFinite))
    expect(finite(await run(false))).toBe(true)
    expect(finite(await run(true))).toBe(false)
  })
})
