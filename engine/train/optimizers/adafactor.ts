import type { Parameter } from '../step.ts'
import { type GroupOptions, type Optimizer, type Slot, slotsOf, withState } from './optimizer.ts'

export interface AdafactorOptions extends GroupOptions {
  /** Added to the squared gradient. */
  squareEpsilon?: number
  /** Largest root mean square of an update. */
  clipThreshold?: number
  /** β₂ of update t is 1 - t^decayRate. */
  decayRate?: number
}

interface FactoredSlot extends Slot {
  /** Running means of g² + ε: by row and by column of a matrix, or of each element. */
  readonly moments:
    | { readonly row: Float32Array; readonly column: Float32Array }
    | { readonly all: Float32Array }
}

/**
 * Adafactor (Shazeer and Stern 2018, arXiv:1804.04235) as transformers' Trainer uses it: given learning rates
 * (relative_step and scale_parameter off), no first moment. For a matrix, with r and c the running means of g² + ε by
 * row and column: u = g / √(r/mean(r) · c); for other tensors u = g / √v. Then
 *   u ← u / max(1, rms(u)/clipThreshold);  p ← p - lr·decay·p - lr·u.
 */
export function createAdafactor(parameters: readonly Parameter[], options: AdafactorOptions): Optimizer {
  const { squareEpsilon: epsilon = 1e-30, clipThreshold = 1, decayRate = -0.8 } = options
  const slots: FactoredSlot[] = slotsOf(parameters, options).map((slot) => ({
    ...slot,
    moments: momentsFor(slot.parameter),
  }))
  return withState(stateOf(slots), (gradients, learningRate, step) => {
    const beta = 1 - step ** decayRate
    for (const slot of slots) {
      const update = scaled(slot, gradients[slot.index]!, beta, epsilon)
      const rate = learningRate * slot.rateFactor
      const size = rate / Math.max(1, rootMeanSquare(update) / clipThreshold)
      const kept = 1 - rate * slot.weightDecay
      const { data } = slot.parameter
      for (let i = 0; i < data.length; i++) data[i] = data[i]! * kept - size * update[i]!
    }
  })
}

function momentsFor({ shape, data }: Parameter): FactoredSlot['moments'] {
  return shape.length === 2
    ? { row: new Float32Array(shape[0]!), column: new Float32Array(shape[1]!) }
    : { all: new Float32Array(data.length) }
}

function stateOf(slots: readonly FactoredSlot[]): Map<string, Float32Array> {
  const tensors = new Map<string, Float32Array>()
  for (const { parameter, moments } of slots) {
    if ('all' in moments) tensors.set(`exp_avg_sq.${parameter.name}`, moments.all)
    else {
      tensors.set(`exp_avg_sq_row.${parameter.name}`, moments.row)
      tensors.set(`exp_avg_sq_col.${parameter.name}`, moments.column)
    }
  }
  return tensors
}

/** Brings the moments up to date; returns the gradient divided by their root. */
function scaled(
  { moments }: FactoredSlot,
  gradient: Float32Array,
  beta: number,
  epsilon: number,
): Float64Array {
  if ('all' in moments) {
    return Float64Array.from(gradient, (g, i) => {
      const v = beta * moments.all[i]! + (1 - beta) * (g * g + epsilon)
      moments.all[i] = v
      return g / Math.sqrt(v)
    })
  }
  const { row, column } = moments
  const rowSums = new Float64Array(row.length)
  const columnSums = new Float64Array(column.length)
  for (let i = 0; i < gradient.length; i++) {
    const square = gradient[i]! * gradient[i]! + epsilon
    rowSums[Math.floor(i / column.length)]! += square
    columnSums[i % column.length]! += square
  }
  for (let i = 0; i < row.length; i++) row[i] = beta * row[i]! + ((1 - beta) * rowSums[i]!) / column.length
  for (let j = 0; j < column.length; j++) {
    column[j] = beta * column[j]! + ((1 - beta) * columnSums[j]!) / row.length
  }
  const mean = row.reduce((sum, value) => sum + value, 0) / row.length
  return Float64Array.from(gradient, (g, i) => {
    return g / Math.sqrt((row[Math.floor(i / column.length)]! / mean) * column[i % column.length]!)
  })
}

function rootMeanSquare(values: Float64Array): number {
  let sum = 0
  for (let i = 0; i < values.length; i++) sum += values[i]! * values[i]!
  return Math.sqrt(sum / values.length)
}
