import { describe, expect, it } from 'vitest'
import { createAdamW } from '../../../../engine/train/optimizers/adamw.ts'
import type { OptimizerState } from '../../../../engine/train/optimizers/optimizer.ts'
import { decays } from '../../../../engine/train/optimizers/optimizer.ts'
import type { Parameter } from '../../../../engine/train/step.ts'
import reference from '../../../parity/train-reference.json' with { type: 'json' }

const OPTIONS = { beta1: 0.9, beta2: 0.99, epsilon: 1e-6, weightDecay: 0.1 }

const parameter = (name: string, values: readonly number[]): Parameter => ({
  name,
  shape: [values.length],
  data: Float32Array.from(values),
})

const copy = ({ step, tensors }: OptimizerState): OptimizerState => ({
  step,
  tensors: new Map(Array.from(tensors, ([name, data]) => [name, data.slice()])),
})

describe('AdamW', () => {
  it.each(reference.adamw)('steps as torch.optim.AdamW with decay $weight_decay', (run) => {
    const parameters = run.start.map((values, index) => parameter(`p${index}`, values))
    const optimizer = createAdamW(parameters, { ...OPTIONS, weightDecay: run.weight_decay })
    for (const { lr, gradients, parameters: expected } of run.steps) {
      const before = parameters.map(({ data }) => data.slice())
      optimizer.update(
        gradients.map((values) => Float32Array.from(values)),
        lr,
      )
      for (const [index, { data }] of parameters.entries()) {
        for (const [i, value] of data.entries()) {
          const wanted = expected[index]![i]!
          const rounding = 4e-7 * Math.max(Math.abs(wanted), Math.abs(before[index]![i]!))
          expect(Math.abs(value - wanted)).toBeLessThan(rounding + 1e-8)
        }
      }
    }
  })

  it('goes on bit for bit from a state that was saved and restored', () => {
    const gradient = (step: number) => Float32Array.from({ length: 5 }, (_, i) => Math.sin(3 * step + i))
    const start = [0.5, -1, 2, 1e-4, -7]
    const [one, two] = [parameter('p', start), parameter('p', start)]
    const straight = createAdamW([one], OPTIONS)
    let interrupted = createAdamW([two], OPTIONS)
    for (let step = 0; step < 20; step++) {
      straight.update([gradient(step)], 0.01)
      const saved = copy(interrupted.state())
      interrupted = createAdamW([two], OPTIONS)
      interrupted.restore(saved)
      interrupted.update([gradient(step)], 0.01)
      expect(two.data).toEqual(one.data)
    }
  })

  it('refuses the state of other parameters by name', () => {
    const state = createAdamW([parameter('p', [1, 2])], OPTIONS).state()
    const optimizer = createAdamW([parameter('q', [1, 2])], OPTIONS)
    expect(() => optimizer.restore(state)).toThrow(/exp_avg\.q is missing/)
  })

  it('decays matrices, but neither biases nor norms', () => {
    const names = { 'model.layers.0.mlp.up_proj.weight': [4, 4], 'x.lora_A.weight': [8, 4] }
    for (const [name, shape] of Object.entries(names)) {
      expect(decays({ name, shape, data: new Float32Array() })).toBe(true)
    }
    for (const name of [
      'model.norm.weight',
      'layers.0.input_layernorm.weight',
      'q_proj.bias',
      'q_norm.weight',
    ]) {
      expect(decays({ name, shape: [4], data: new Float32Array() })).toBe(false)
    }
  })
})
