import { gram, type Matrix, multiply, norm, toMatrix, transpose } from '../../linalg/matrix.ts'
import type { Parameter } from '../step.ts'
import { type AdamWOptions, createAdamW } from './adamw.ts'
import { type Optimizer, slotsOf, withState } from './optimizer.ts'

export interface MuonOptions extends AdamWOptions {
  momentum?: number
}

/** Newton-Schulz steps, and their coefficients: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. */
const STEPS = 5
const [A, B, C] = [3.4445, -4.775, 2.0315]

/**
 * Muon (Jordan et al. 2024) with Nesterov momentum, its updates scaled to AdamW's size (Liu et al. 2025,
 * arXiv:2502.16982), as torch.optim.Muon computes it with match_rms_adamw, but in double precision:
 *   b ← μb + (1-μ)g;  u = orthogonalize((1-μ)g + μb);  p ← p·(1 - lr·decay) - lr·0.2·√max(rows, columns)·u.
 * It is for matrices alone: embeddings, the head and all other tensors get AdamW.
 */
export function createMuon(parameters: readonly Parameter[], options: MuonOptions): Optimizer {
  const { momentum = 0.95 } = options
  const adamw = createAdamW(
    parameters.filter((parameter) => !isHidden(parameter)),
    options,
  )
  const all = slotsOf(parameters, options)
  const slots = all
    .filter(({ parameter }) => isHidden(parameter))
    .map((slot) => ({ ...slot, buffer: new Float32Array(slot.parameter.data.length) }))
  const others = all.filter(({ parameter }) => !isHidden(parameter)).map(({ index }) => index)
  const buffers = new Map(slots.map(({ parameter, buffer }) => [`momentum.${parameter.name}`, buffer]))
  const muon = withState(buffers, (gradients, learningRate) => {
    for (const { index, parameter, weightDecay, rateFactor, buffer } of slots) {
      const { data, shape } = parameter
      const gradient = gradients[index]!
      const direction = new Float32Array(data.length)
      for (let i = 0; i < data.length; i++) {
        buffer[i] = momentum * buffer[i]! + (1 - momentum) * gradient[i]!
        direction[i] = (1 - momentum) * gradient[i]! + momentum * buffer[i]!
      }
      const [rows, columns] = shape as [number, number]
      const update = orthogonalize(toMatrix(direction, [rows, columns]))
      const rate = learningRate * rateFactor
      const size = rate * 0.2 * Math.sqrt(Math.max(rows, columns))
      for (let i = 0; i < data.length; i++)
        data[i] = data[i]! * (1 - rate * weightDecay) - size * update.data[i]!
    }
  })
  return {
    update(gradients, learningRate) {
      muon.update(gradients, learningRate)
      adamw.update(
        others.map((index) => gradients[index]!),
        learningRate,
      )
    },
    state: () => ({
      step: muon.state().step,
      tensors: new Map([...muon.state().tensors, ...adamw.state().tensors]),
    }),
    restore(state) {
      muon.restore(state)
      adamw.restore(state)
    },
  }
}

function isHidden({ name, shape }: Parameter): boolean {
  return shape.length === 2 && !/embed|lm_head/.test(name)
}

/** Nearly u·vᵀ of the singular value decomposition: X ← a·X + (b·XXᵀ + c·(XXᵀ)²)·X, from X = G / ‖G‖. */
function orthogonalize(gradient: Matrix): Matrix {
  if (gradient.rows > gradient.columns) return transpose(orthogonalize(transpose(gradient)))
  let x = scale(gradient, 1 / Math.max(norm(gradient.data), 1e-7))
  for (let step = 0; step < STEPS; step++) {
    const square = gram(x)
    const fourth = multiply(square, square)
    const polynomial = { ...square, data: square.data.map((value, i) => B * value + C * fourth.data[i]!) }
    const product = multiply(polynomial, x)
    x = { ...x, data: x.data.map((value, i) => A * value + product.data[i]!) }
  }
  return x
}

function scale(matrix: Matrix, factor: number): Matrix {
  return { ...matrix, data: matrix.data.map((value) => value * factor) }
}
