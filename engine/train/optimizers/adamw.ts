import { EngineError } from '../../errors.ts'
import type { Parameter } from '../step.ts'
import type { Optimizer, OptimizerState } from './optimizer.ts'

export interface AdamWOptions {
  beta1: number
  beta2: number
  epsilon: number
  weightDecay: number
  /** Which parameters decay; all when left out. See `decays`. */
  decays?: (parameter: Parameter) => boolean
}

interface Moments {
  parameter: Parameter
  weightDecay: number
  first: Float32Array
  second: Float32Array
}

/**
 * AdamW (Loshchilov and Hutter, 2019) as torch.optim.AdamW computes it: decay is decoupled, p ← p (1 - lr · decay), and
 * epsilon is added after the bias correction of the second moment. Each element is computed in double precision;
 * parameters and moments are kept in float32, so a state that was saved and restored goes on bit for bit.
 */
export function createAdamW(parameters: readonly Parameter[], options: AdamWOptions): Optimizer {
  const { beta1, beta2, epsilon } = options
  const decays = options.decays ?? (() => true)
  const moments: Moments[] = parameters.map((parameter) => ({
    parameter,
    weightDecay: decays(parameter) ? options.weightDecay : 0,
    first: new Float32Array(parameter.data.length),
    second: new Float32Array(parameter.data.length),
  }))
  let step = 0

  return {
    update(gradients, learningRate) {
      step++
      const stepSize = learningRate / (1 - beta1 ** step)
      const secondCorrection = Math.sqrt(1 - beta2 ** step)
      for (const [index, { parameter, weightDecay, first, second }] of moments.entries()) {
        const { data } = parameter
        const gradient = gradients[index]!
        const kept = 1 - learningRate * weightDecay
        for (let i = 0; i < data.length; i++) {
          const g = gradient[i]!
          const m = first[i]! + (1 - beta1) * (g - first[i]!)
          const v = beta2 * second[i]! + (1 - beta2) * g * g
          first[i] = m
          second[i] = v
          data[i] = data[i]! * kept - (stepSize * m) / (Math.sqrt(v) / secondCorrection + epsilon)
        }
      }
    },
    state() {
      const tensors = new Map<string, Float32Array>()
      for (const { parameter, first, second } of moments) {
        tensors.set(`exp_avg.${parameter.name}`, first)
        tensors.set(`exp_avg_sq.${parameter.name}`, second)
      }
      return { step, tensors }
    },
    restore(state) {
      for (const { parameter, first, second } of moments) {
        first.set(savedTensor(state, `exp_avg.${parameter.name}`, first.length))
        second.set(savedTensor(state, `exp_avg_sq.${parameter.name}`, second.length))
      }
      step = state.step
    },
  }
}

/** transformers' rule of what weight decay is for: not for biases, nor for the weights of norms (one-dimensional). */
export function decays({ name, shape }: Parameter): boolean {
  return shape.length > 1 && !/bias|layernorm|rmsnorm|(?:^|[._])norm(?:$|\.)/i.test(name)
}

function savedTensor(state: OptimizerState, name: string, length: number): Float32Array {
  const saved = state.tensors.get(name)
  if (saved?.length === length) return saved
  const found = saved ? `has ${saved.length} values` : 'is missing'
  throw new EngineError(
    'invalid',
    'optimizer_state_mismatch',
    `The optimizer state does not belong to these parameters: ${name} ${found}, ${length} expected.`,
    { param: 'resume_from_checkpoint' },
  )
}
