import { afterAll, describe, expect, it } from 'vitest'
import { initializeLora } from '../../../engine/adapter/initialize.ts'
import { openModel } from '../../../engine/models/index.ts'
import { createRandom } from '../../../engine/random.ts'
import type { EncodedExample, TrainExample } from '../../../engine/text/conversation.ts'
import { accumulateGradients, evaluate } from '../../../engine/train/accumulate.ts'
import { CompiledStep } from '../../../engine/train/compiled-step.ts'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import { objectiveOf } from '../../../engine/train/objectives/index.ts'
import { meansOf } from '../../../engine/train/objectives/metrics.ts'
import type { TrainingMethod } from '../../../engine/train/training-method.ts'
import { tinyLlama } from '../../src/engine-host/tiny-llama.ts'

const folder = tinyLlama()
const lora = { kind: 'lora', rank: 2, scale: 2, dropout: 0, targets: 'all' } as const
const opened: CompiledStep[] = []
afterAll(async () => {
  for (const step of opened) await step.release()
})

/** A step of a stage with its objective; `method` is full or a fresh adapter. */
async function stageStep(fields: Record<string, unknown>, method: TrainingMethod = lora, lossChunks = 1) {
  const objective = objectiveOf(parseTrainConfig({ model: 'tiny', dataset: 'set', ...fields }))
  const model = openModel(folder)
  const initializeMethod =
    method.kind === 'full' ? (name: string) => model.weights.readFloat32(name) : initializeLora(1)
  const initialize = (name: string, shape: readonly number[]) =>
    objective.initialize?.(name, shape, 1) ?? initializeMethod(name, shape)
  const step = await CompiledStep.create(model, { method, objective, maxLength: 64, initialize, lossChunks })
  opened.push(step)
  const run = async (batches: readonly TrainExample[][]) => {
    const sums = await accumulateGradients(step, batches, objective, { padId: 0, random: createRandom(1) })
    return { ...sums, means: meansOf(sums.metrics) }
  }
  const descend = (gradients: readonly Float32Array[], rate: number) => {
    for (const [index, { data }] of step.parameters.entries()) {
      for (let i = 0; i < data.length; i++) data[i] = data[i]! - rate * gradients[index]![i]!
    }
  }
  return { step, objective, run, descend }
}

/** An answer of `length` tokens behind a question of three. */
function sequence(length: number, seed: number): EncodedExample {
  const random = createRandom(seed)
  const inputIds = Int32Array.from({ length: 3 + length }, () => 97 + random.nextInt(26))
  return { inputIds, labels: inputIds.map((id, index) => (index < 3 ? -100 : id)) }
}

const pair = (seed: number) => ({
  chosen: sequence(2 + (seed % 5), 2 * seed),
  rejected: sequence(3 + (seed % 4), 2 * seed + 1),
})
const verdict = (seed: number) => ({
  answer: sequence(2 + (seed % 5), 2 * seed),
  unrelated: sequence(3 + (seed % 4), 2 * seed + 1),
  desirable: seed % 2 === 0,
})
const pairs = [1, 2, 3, 4, 5].map(pair)

describe('a preference', () => {
  it.each([
    ['a fresh adapter', lora],
    ['full training', { kind: 'full' } as const],
  ] as const)('with %s is compared with the model that the run began with', async (_, method) => {
    const { run, descend } = await stageStep({ stage: 'dpo', pref_beta: 0.3 }, method)
    const before = await run([pairs])
    expect(before.loss).toBeCloseTo(Math.LN2, 6)
    expect(before.means['rewards/chosen']).toBeCloseTo(0, 6)
    descend(before.gradients, 0.5)
    const after = await run([pairs])
    expect(after.loss).toBeLessThan(before.loss - 1e-3)
    for (const side of ['chosen', 'rejected']) {
      const moved = after.means[`logps/${side}`]! - before.means[`logps/${side}`]!
      expect(after.means[`rewards/${side}`]).toBeCloseTo(0.3 * moved, 4)
    }
    const { 'rewards/chosen': chosen, 'rewards/rejected': rejected } = after.means
    expect(after.means['rewards/margins']).toBeCloseTo(chosen! - rejected!, 6)
  })

  it('gives the same loss and gradients in one batch as in several', async () => {
    for (const stage of ['dpo', 'rm']) {
      const { run, descend } = await stageStep({ stage })
      descend((await run([pairs])).gradients, 0.5)
      const together = await run([pairs])
      const apart = await run([pairs.slice(0, 2), pairs.slice(2)])
      expect(apart.loss).toBeCloseTo(together.loss, 5)
      for (const [index, gradient] of apart.gradients.entries()) {
        for (const [i, value] of gradient.entries()) {
          expect(Math.abs(value - together.gradients[index]![i]!)).toBeLessThan(1e-5)
        }
      }
    }
  })

  it('adds pref_ftx times the chosen loss per token, and weighs both directions by dpo_label_smoothing', async () => {
    const one = [pairs[0]!]
    const plain = await stageStep({ stage: 'dpo' })
    const first = await plain.run([one])
    const learned = first.means['logps/chosen']! / (one[0]!.chosen.inputIds.length - 3)
    const mixed = await (await stageStep({ stage: 'dpo', pref_ftx: 2 })).run([one])
    expect(mixed.loss).toBeCloseTo(first.loss - 2 * learned, 4)
    const smooth = await stageStep({ stage: 'dpo', dpo_label_smoothing: 0.25 })
    smooth.descend((await smooth.run([one])).gradients, 0.5)
    const { loss, means } = await smooth.run([one])
    const margin = means['rewards/margins']!
    expect(margin).toBeGreaterThan(1e-3)
    const logSigmoid = (x: number) => -Math.log1p(Math.exp(-x))
    expect(loss).toBeCloseTo(-0.75 * logSigmoid(margin) - 0.25 * logSigmoid(-margin), 5)
  })

  it('is evaluated as it is trained', async () => {
    const { step, objective, run, descend } = await stageStep({ stage: 'dpo' })
    descend((await run([pairs])).gradients, 0.5)
    const { loss, means } = await run([pairs])
    const options = { batchSize: 2, padId: 0 }
    const evaluated = await evaluate(step, [{ examples: pairs }], objective, options)
    expect(evaluated.eval_loss).toBeCloseTo(loss, 5)
    expect(evaluated['eval_rewards/accuracies']).toBe(means['rewards/accuracies'])
  })
})

describe('verdicts', () => {
  it('begin at half of the weights, and move both kinds apart', async () => {
    const verdicts = [1, 2, 3, 4].map(verdict)
    const fields = { stage: 'kto', kto_chosen_weight: 2, kto_rejected_weight: 1, pref_beta: 0.5 }
    const { run, descend } = await stageStep(fields)
    const before = await run([verdicts])
    expect(before.loss).toBeCloseTo((2 * 2 * 0.5 + 2 * 0.5) / 4, 6)
    expect(before.means.kl).toBe(0)
    descend(before.gradients, 0.5)
    const after = await run([verdicts])
    expect(after.loss).toBeLessThan(before.loss)
    expect(after.means['rewards/chosen']! - after.means['rewards/rejected']!).toBeGreaterThan(0)
  })
})

describe('a reward', () => {
  it('is the score of the last token, whatever the padding, and its loss -log σ of the margin', async () => {
    const { step, run } = await stageStep({ stage: 'rm' })
    const [long, short] = [pair(4), pair(5)]
    const alone = await run([[short]])
    const margin = alone.means['rewards/margins']!
    expect(alone.loss).toBeCloseTo(Math.log1p(Math.exp(-margin)), 5)
    const together = await run([[long, short]])
    const other = (await run([[long]])).means['rewards/chosen']!
    expect(together.means['rewards/chosen']).toBeCloseTo((alone.means['rewards/chosen']! + other) / 2, 4)
    const index = step.parameters.findIndex(({ name }) => name === 'v_head.summary.weight')
    expect(together.gradients[index]!.some((value) => value !== 0)).toBe(true)
    const bias = step.parameters.findIndex(({ name }) => name === 'v_head.summary.bias')
    expect(Math.abs(together.gradients[bias]![0]!)).toBeLessThan(1e-6)
  })
})

describe('token accuracy', () => {
  it('grows to one when the model has learned its examples by heart, and is evaluated alike', async () => {
    const examples = [sequence(6, 1), sequence(4, 2)]
    const { step, objective, run, descend } = await stageStep({ compute_accuracy: true }, { kind: 'full' })
    const first = await run([examples])
    expect(first.means.accuracy).toBeLessThan(1)
    for (let i = 0; i < 60; i++) descend((await run([examples])).gradients, 0.3)
    const { means } = await run([examples])
    expect(means.accuracy).toBe(1)
    const evaluated = await evaluate(step, [{ examples }], objective, { batchSize: 1, padId: 0 })
    expect(evaluated.eval_accuracy).toBe(1)
  })

  it('is the same where the loss is cut into parts', async () => {
    const examples = [sequence(6, 1), sequence(5, 2), sequence(7, 3)]
    const accuracies: number[] = []
    for (const chunks of [1, 4]) {
      const { run, descend } = await stageStep({ compute_accuracy: true }, { kind: 'full' }, chunks)
      for (let i = 0; i < 12; i++) descend((await run([examples])).gradients, 0.2)
      const { means, metrics } = await run([examples])
      expect(metrics.accuracy!.count).toBe(18)
      accuracies.push(means.accuracy!)
    }
    expect(accuracies[0]).toBeGreaterThan(0)
    expect(accuracies[1]).toBe(accuracies[0])
  })
})
