import type { Parameter } from '../step.ts'
import { type GroupOptions, type Optimizer, slotsOf, withState } from './optimizer.ts'

export interface AdamWOptions extends GroupOptions {
  beta1: number
  beta2: number
  epsilon: number
}

/**
 * AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) as torch.optim.AdamW computes it, with t updates made:
 *   p ← p·(1 - lr·decay);  m ← β₁m + (1-β₁)g;  v ← β₂v + (1-β₂)g²;  p ← p - lr/(1-β₁ᵗ) · m / (√v/√(1-β₂ᵗ) + ε).
 * Each element is computed in double precision; parameters and moments are kept in float32, so a state that was saved
 * and restored goes on bit for bit.
 */
export function createAdamW(parameters: readonly Parameter[], options: AdamWOptions): Optimizer {
  const { beta1, beta2, epsilon } = options
  const moments = slotsOf(parameters, options).map((slot) => ({
    ...slot,
    first: new Float32Array(slot.parameter.data.length),
    second: new Float32Array(slot.parameter.data.length),
  }))
  const tensors = new Map<string, Float32Array>()
  for (const { parameter, first, second } of moments) {
    tensors.set(`exp_avg.${parameter.name}`, first)
    tensors.set(`exp_avg_sq.${parameter.name}`, second)
  }
  return withState(tensors, (gradients, learningRate, step) => {
    const secondCorrection = Math.sqrt(1 - beta2 ** step)
    for (const { index, parameter, weightDecay, rateFactor, first, second } of moments) {
      const { data } = parameter
      const gradient = gradients[index]!
      const rate = learningRate * rateFactor
      const stepSize = rate / (1 - beta1 ** step)
      const kept = 1 - rate * weightDecay
      for (let i = 0; i < data.length; i++) {
        const g = gradient[i]!
        const m = first[i]! + (1 - beta1) * (g - first[i]!)
        const v = beta2 * second[i]! + (1 - beta2) * g * g
        first[i] = m
        second[i] = v
        data[i] = data[i]! * kept - (stepSize * m) / (Math.sqrt(v) / secondCorrection + epsilon)
      }
    }
  })
}
