import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openModel } from '../../engine/models/index.ts'
import { createRandom } from '../../engine/random.ts'
import type { EncodedExample, TrainExample } from '../../engine/text/conversation.ts'
import { accumulateGradients } from '../../engine/train/accumulate.ts'
import { clipGradients } from '../../engine/train/clip.ts'
import { CompiledStep } from '../../engine/train/compiled-step.ts'
import { parseTrainConfig } from '../../engine/train/config.ts'
import { objectiveOf } from '../../engine/train/objectives/index.ts'
import { createAdamW } from '../../engine/train/optimizers/adamw.ts'
import { WeightFolder } from '../../engine/weights/safetensors.ts'

/** What preference-reference.py wrote; another folder of it, with other seeds, may be named. */
const FOLDER = process.env.PREFERENCE_REFERENCE ?? join(import.meta.dirname, 'preference')

interface Sequence {
  ids: number[]
  labels: number[]
}
type ReferenceExample =
  | { chosen: Sequence; rejected: Sequence }
  | { answer: Sequence; unrelated: Sequence; desirable: boolean }
interface Reference {
  rank: number
  alpha: number
  learning_rate: number
  beta: number
  simpo_gamma: number
  kto_rejected_weight: number
  cases: Record<string, { loss: number; examples: ReferenceExample[] }[]>
}

const reference = JSON.parse(readFileSync(join(FOLDER, 'reference.json'), 'utf8')) as Reference

const encoded = ({ ids, labels }: Sequence): EncodedExample => {
  return { inputIds: Int32Array.from(ids), labels: Int32Array.from(labels) }
}

function exampleOf(example: ReferenceExample): TrainExample {
  if ('chosen' in example) return { chosen: encoded(example.chosen), rejected: encoded(example.rejected) }
  const { answer, unrelated, desirable } = example
  return { answer: encoded(answer), unrelated: encoded(unrelated), desirable }
}

/** Start values from the trainer's own adapter; the value head's bias, which TRL does not have, is zero. */
function startValues(name: string): (tensor: string, shape: readonly number[]) => Float32Array {
  const folder = WeightFolder.open(FOLDER, { fileName: `start-${name}.safetensors` })
  return (tensor) => {
    if (tensor === 'v_head.summary.bias') return new Float32Array(1)
    return folder.readFloat32(tensor === 'v_head.summary.weight' ? 'base_model.model.score.weight' : tensor)
  }
}

/** Trains as the reference did, on the very same batches; returns each step's loss and metrics. */
async function train(name: string) {
  const { rank, alpha, learning_rate: rate, ...options } = reference
  const stage = name === 'rm' || name === 'kto' ? name : 'dpo'
  const config = parseTrainConfig({
    model: 'tiny',
    dataset: 'reference',
    stage,
    pref_loss: stage === 'dpo' ? name : 'sigmoid',
    pref_beta: options.beta,
    simpo_gamma: options.simpo_gamma,
    kto_rejected_weight: options.kto_rejected_weight,
  })
  const objective = objectiveOf(config)
  const model = openModel(join(FOLDER, 'model'))
  const method = { kind: 'lora', rank, scale: alpha / rank, dropout: 0, targets: 'all' } as const
  const step = await CompiledStep.create(model, {
    method,
    objective,
    maxLength: 64,
    initialize: startValues(name),
  })
  const optimizer = createAdamW(step.parameters, { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 })
  const random = createRandom(1)
  const losses: number[] = []
  for (const { examples } of reference.cases[name]!) {
    const { loss, gradients } = await accumulateGradients(step, [examples.map(exampleOf)], objective, {
      padId: 0,
      random,
    })
    clipGradients(gradients, 1)
    optimizer.update(gradients, rate)
    losses.push(loss)
  }
  await step.release()
  model.weights.close()
  return losses
}

describe("TRL's numbers on a tiny llama", () => {
  it.each(Object.keys(reference.cases))('%s: the losses of 20 steps are within 1e-3', async (name) => {
    const losses = await train(name)
    const wanted = reference.cases[name]!.map(({ loss }) => loss)
    expect(wanted).toHaveLength(20)
    const worst = Math.max(...losses.map((loss, index) => Math.abs(loss - wanted[index]!)))
    expect(worst).toBeLessThan(1e-3)
    // and the steps have moved it: a model that stood still would not pass
    expect(Math.abs(wanted.at(-1)! - wanted[0]!)).toBeGreaterThan(1e-2)
  })
})
