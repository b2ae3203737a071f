import { describe, expect, it } from 'vitest'
import { createAdafactor } from '../../../../engine/train/optimizers/adafactor.ts'
import { createBAdam } from '../../../../engine/train/optimizers/badam.ts'
import { createGaLore } from '../../../../engine/train/optimizers/galore.ts'
import { createLion } from '../../../../engine/train/optimizers/lion.ts'
import { createMuon } from '../../../../engine/train/optimizers/muon.ts'
import { readOptimArgs } from '../../../../engine/train/optimizers/optim-args.ts'
import { decays, type Optimizer } from '../../../../engine/train/optimizers/optimizer.ts'
import { createSgd } from '../../../../engine/train/optimizers/sgd.ts'
import type { Parameter } from '../../../../engine/train/step.ts'
import reference from '../../../parity/optimizer-reference.json' with { type: 'json' }

const common = { beta1: 0.9, beta2: 0.99, epsilon: 1e-6, weightDecay: 0.1, decays }
const galore = { ...common, rank: 2, updateInterval: 4, scale: 2, targets: () => true, seed: 1 }
const badam = { ...common, decays: undefined, switchMode: 'ascending', switchInterval: 2, seed: 1 } as const
type Make = (parameters: readonly Parameter[]) => Optimizer
const makers: Record<keyof typeof reference.optimizers, Make> = {
  sgd: (parameters) => createSgd(parameters, { ...common, momentum: 0 }),
  sgd_momentum: (parameters) => createSgd(parameters, { ...common, momentum: 0.9, dampening: 0.1 }),
  sgd_nesterov: (parameters) => createSgd(parameters, { ...common, momentum: 0.9, nesterov: true }),
  adafactor: (parameters) => createAdafactor(parameters, common),
  lion: (parameters) => createLion(parameters, common),
  muon: (parameters) => createMuon(parameters, common),
  galore: (parameters) => createGaLore(parameters, galore),
  badam: (parameters) => createBAdam(parameters, { ...badam, decays: () => true }),
}
const names = Object.keys(makers) as (keyof typeof makers)[]

function parametersOf(run: (typeof reference.optimizers)['sgd']): Parameter[] {
  return Object.entries(run.start).map(([name, values]) => ({
    name,
    shape: reference.shapes[name as keyof typeof reference.shapes],
    data: Float32Array.from(values),
  }))
}

const floats = (lists: readonly (readonly number[])[]) => lists.map((values) => Float32Array.from(values))

describe("other implementations' numbers", () => {
  it.each(names)('%s steps as the reference does', (name) => {
    const run = reference.optimizers[name]
    const parameters = parametersOf(run)
    const optimizer = makers[name](parameters)
    for (const { lr, gradients, parameters: expected } of run.steps) {
      const before = parameters.map(({ data }) => data.slice())
      optimizer.update(floats(gradients), lr)
      for (const [index, { data }] of parameters.entries()) {
        for (const [i, value] of data.entries()) {
          const wanted = expected[index]![i]!
          const rounding = 4e-6 * Math.max(Math.abs(wanted), Math.abs(before[index]![i]!))
          expect(Math.abs(value - wanted)).toBeLessThan(rounding + 1e-6)
        }
      }
    }
  })

  it.each(names)('%s goes on bit for bit from a state that was saved and restored at any step', (name) => {
    const run = reference.optimizers[name]
    const [straight, interrupted] = [parametersOf(run), parametersOf(run)]
    const whole = makers[name](straight)
    let part = makers[name](interrupted)
    for (const { lr, gradients } of run.steps) {
      whole.update(floats(gradients), lr)
      const { step, tensors } = part.state()
      const saved = { step, tensors: new Map(Array.from(tensors, ([key, data]) => [key, data.slice()])) }
      part = makers[name](interrupted)
      part.restore(saved)
      part.update(floats(gradients), lr)
      expect(interrupted).toEqual(straight)
    }
  })
})

describe('BAdam', () => {
  const run = reference.optimizers.badam
  const moved = (switchMode: 'descending' | 'random' | 'fixed', updates: number, startBlock?: number) => {
    const parameters = parametersOf(run)
    const optimizer = createBAdam(parameters, { ...badam, switchMode, startBlock })
    for (const { lr, gradients } of run.steps.slice(0, updates)) optimizer.update(floats(gradients), lr)
    const start = parametersOf(run)
    return parameters
      .filter(({ data }, i) => data.some((value, j) => value !== start[i]!.data[j]))
      .map(({ name }) => name)
  }

  it('begins with the last layer when descending, stays where it is when fixed', () => {
    expect(moved('descending', 2)).toEqual(['model.layers.1.a.weight'])
    expect(moved('fixed', 9, 1)).toEqual(['model.layers.1.a.weight'])
    expect(moved('random', 4)).toHaveLength(3)
  })

  it('refuses a start that is no layer', () => {
    expect(() => moved('fixed', 1, 2)).toThrow(/badam_start_block 2 .* has 0 to 1/)
  })
})

describe('optim_args', () => {
  it('are read as transformers has them', () => {
    expect(readOptimArgs('sgd', 'momentum=0.9, nesterov=true')).toEqual({ momentum: 0.9, nesterov: true })
    expect(readOptimArgs('adafactor', 'clip_threshold=2')).toEqual({ clipThreshold: 2 })
    expect(readOptimArgs('adamw_torch', undefined)).toEqual({})
  })

  it.each(['momentum', 'momentum=fast', 'momentum=', 'speed=1', '__proto__=1'])(
    '%j is refused for sgd',
    (text) => {
      expect(() => readOptimArgs('sgd', text)).toThrow(/optim_args: .* momentum=VALUE/)
    },
  )
})
