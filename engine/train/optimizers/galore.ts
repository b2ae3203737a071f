import { type Matrix, toMatrix } from '../../linalg/matrix.ts'
import { randomizedSvd } from '../../linalg/svd.ts'
import type { Parameter } from '../step.ts'
import type { AdamWOptions } from './adamw.ts'
import { type Optimizer, type Slot, slotsOf, withState } from './optimizer.ts'

export interface GaLoreOptions extends AdamWOptions {
  /** At most the shorter side of each targeted matrix. */
  rank: number
  /** Updates between two looks for the gradient's main directions. */
  updateInterval: number
  /** Factor on projected updates. */
  scale: number
  /** Which parameters are projected; only matrices can be. */
  targets: (parameter: Parameter) => boolean
  seed: number
}

interface ProjectedSlot extends Slot {
  readonly projector: Projector | null
  readonly first: Float32Array
  readonly second: Float32Array
}

/** Main directions of a matrix's gradient, on its shorter side: [rank, columns] ('right') or [rows, rank] ('left'). */
interface Projector {
  readonly side: 'left' | 'right'
  readonly rows: number
  readonly columns: number
  readonly rank: number
  readonly basis: Float32Array
}

/** Enough to separate a gradient's leading directions. */
const SVD_ITERATIONS = 8

/**
 * GaLore (Zhao et al. 2024, arXiv:2403.03507): AdamW on the gradient's projection onto its main directions, which are
 * found anew every `updateInterval` updates, so that the moments are small.
 *   R = PᵀG or GQ;  m, v of R;  N = √(1-β₂ᵗ)/(1-β₁ᵗ) · m/(√v + ε);  p ← p - lr·scale·(P·N or N·Qᵀ);  p ← p·(1 - lr·decay).
 */
export function createGaLore(parameters: readonly Parameter[], options: GaLoreOptions): Optimizer {
  const { beta1, beta2, epsilon, updateInterval, scale, seed } = options
  const slots = slotsOf(parameters, options).map((slot) => projectedSlot(slot, options))
  return withState(stateOf(slots), (gradients, learningRate, step) => {
    const correction = Math.sqrt(1 - beta2 ** step) / (1 - beta1 ** step)
    for (const slot of slots) {
      const { projector, first, second, weightDecay } = slot
      const { data } = slot.parameter
      const gradient = gradients[slot.index]!
      if (projector && (step - 1) % updateInterval === 0)
        findDirections(projector, gradient, seed + slot.index)
      const seen = projector ? project(projector, gradient) : gradient
      const rate = learningRate * slot.rateFactor
      const update = new Float64Array(seen.length)
      for (let i = 0; i < seen.length; i++) {
        const m = beta1 * first[i]! + (1 - beta1) * seen[i]!
        const v = beta2 * second[i]! + (1 - beta2) * seen[i]! * seen[i]!
        first[i] = m
        second[i] = v
        update[i] = m / (Math.sqrt(v) + epsilon)
      }
      const whole = projector ? projectBack(projector, update, scale) : update
      const kept = 1 - rate * weightDecay
      for (let i = 0; i < data.length; i++) data[i] = (data[i]! - rate * correction * whole[i]!) * kept
    }
  })
}

function projectedSlot(slot: Slot, options: GaLoreOptions): ProjectedSlot {
  const { parameter } = slot
  if (parameter.shape.length !== 2 || !options.targets(parameter)) {
    const length = parameter.data.length
    return { ...slot, projector: null, first: new Float32Array(length), second: new Float32Array(length) }
  }
  const [rows, columns] = parameter.shape as [number, number]
  const { rank } = options
  const side = rows >= columns ? 'right' : 'left'
  const basis = new Float32Array(rank * Math.min(rows, columns))
  const projected = rank * Math.max(rows, columns)
  return {
    ...slot,
    projector: { side, rows, columns, rank, basis },
    first: new Float32Array(projected),
    second: new Float32Array(projected),
  }
}

function stateOf(slots: readonly ProjectedSlot[]): Map<string, Float32Array> {
  const tensors = new Map<string, Float32Array>()
  for (const { parameter, projector, first, second } of slots) {
    tensors.set(`exp_avg.${parameter.name}`, first)
    tensors.set(`exp_avg_sq.${parameter.name}`, second)
    if (projector) tensors.set(`projector.${parameter.name}`, projector.basis)
  }
  return tensors
}

function findDirections(projector: Projector, gradient: Float32Array, seed: number): void {
  const { side, rows, columns, rank, basis } = projector
  const { u, v } = randomizedSvd(toMatrix(gradient, [rows, columns]), rank, SVD_ITERATIONS, seed)
  pointAlike(side === 'left' ? u : v)
  if (side === 'left') basis.set(u.data)
  else
    for (let r = 0; r < rank; r++) {
      for (let j = 0; j < columns; j++) basis[r * columns + j] = v.data[j * rank + r]!
    }
}

/** A singular vector's sign is open; the moments outlive their basis, so it is settled: the largest component is positive. */
function pointAlike({ rows, columns, data }: Matrix): void {
  for (let column = 0; column < columns; column++) {
    let largest = 0
    for (let i = column; i < data.length; i += columns)
      if (Math.abs(data[i]!) > Math.abs(largest)) largest = data[i]!
    if (largest < 0) for (let row = 0; row < rows; row++) data[row * columns + column]! *= -1
  }
}

/** G·Qᵀ [rows, rank], or Pᵀ·G [rank, columns]. */
function project({ side, rows, columns, rank, basis }: Projector, gradient: Float32Array): Float64Array {
  const result = new Float64Array(side === 'right' ? rows * rank : rank * columns)
  for (let i = 0; i < rows; i++) {
    for (let r = 0; r < rank; r++) {
      let sum = 0
      for (let j = 0; j < columns; j++) {
        const g = gradient[i * columns + j]!
        if (side === 'right') sum += g * basis[r * columns + j]!
        else result[r * columns + j]! += g * basis[i * rank + r]!
      }
      if (side === 'right') result[i * rank + r] = sum
    }
  }
  return result
}

/** scale·N·Q or scale·P·N, [rows, columns]. */
function projectBack(projector: Projector, update: Float64Array, scale: number): Float64Array {
  const { side, rows, columns, rank, basis } = projector
  const result = new Float64Array(rows * columns)
  for (let i = 0; i < rows; i++) {
    for (let r = 0; r < rank; r++) {
      const left = side === 'right' ? update[i * rank + r]! : basis[i * rank + r]!
      const right: ArrayLike<number> = side === 'right' ? basis : update
      for (let j = 0; j < columns; j++) result[i * columns + j]! += scale * left * right[r * columns + j]!
    }
  }
  return result
}
