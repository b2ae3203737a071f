import type { Parameter } from '../step.ts'
import { type GroupOptions, type Optimizer, slotsOf, withState } from './optimizer.ts'

export interface LionOptions extends GroupOptions {
  beta1: number
  beta2: number
}

/**
 * Lion (Chen et al. 2023, arXiv:2302.06675, algorithm 2):
 *   c = β₁m + (1-β₁)g;  p ← p·(1 - lr·decay) - lr·sign(c);  m ← β₂m + (1-β₂)g.
 */
export function createLion(parameters: readonly Parameter[], options: LionOptions): Optimizer {
  const { beta1, beta2 } = options
  const slots = slotsOf(parameters, options).map((slot) => ({
    ...slot,
    momentum: new Float32Array(slot.parameter.data.length),
  }))
  const tensors = new Map(slots.map(({ parameter, momentum }) => [`exp_avg.${parameter.name}`, momentum]))
  return withState(tensors, (gradients, learningRate) => {
    for (const { index, parameter, weightDecay, rateFactor, momentum } of slots) {
      const { data } = parameter
      const gradient = gradients[index]!
      const rate = learningRate * rateFactor
      const kept = 1 - rate * weightDecay
      for (let i = 0; i < data.length; i++) {
        const g = gradient[i]!
        const m = momentum[i]!
        data[i] = data[i]! * kept - rate * Math.sign(beta1 * m + (1 - beta1) * g)
        momentum[i] = beta2 * m + (1 - beta2) * g
      }
    }
  })
}
