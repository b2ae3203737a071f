import type { Parameter } from '../step.ts'
import { type GroupOptions, type Optimizer, slotsOf, withState } from './optimizer.ts'

export interface SgdOptions extends GroupOptions {
  /** 0 keeps no state. */
  momentum: number
  dampening?: number
  nesterov?: boolean
}

/**
 * Stochastic gradient descent with momentum (Sutskever et al. 2013) as torch.optim.SGD computes it:
 *   g ← g + decay·p;  b ← μ·b + (1-dampening)·g (b ← g at first);  p ← p - lr·b, or p - lr·(g + μ·b) for Nesterov.
 */
export function createSgd(parameters: readonly Parameter[], options: SgdOptions): Optimizer {
  const { momentum, dampening = 0, nesterov = false } = options
  const slots = slotsOf(parameters, options).map((slot) => ({
    ...slot,
    buffer: new Float32Array(momentum > 0 ? slot.parameter.data.length : 0),
  }))
  const tensors = new Map<string, Float32Array>()
  if (momentum > 0)
    for (const { parameter, buffer } of slots) tensors.set(`momentum.${parameter.name}`, buffer)
  return withState(tensors, (gradients, learningRate, step) => {
    for (const { index, parameter, weightDecay, rateFactor, buffer } of slots) {
      const { data } = parameter
      const gradient = gradients[index]!
      const rate = learningRate * rateFactor
      for (let i = 0; i < data.length; i++) {
        let direction = gradient[i]! + weightDecay * data[i]!
        if (momentum > 0) {
          const b = step === 1 ? direction : momentum * buffer[i]! + (1 - dampening) * direction
          buffer[i] = b
          direction = nesterov ? direction + momentum * b : b
        }
        data[i] = data[i]! - rate * direction
      }
    }
  })
}
