import { float16Bits, float16Value } from '../weights/dtypes.ts'
import { columnsOf, factorHessian } from './factor.ts'
import type { OrderedBlocks } from './gptq-reader.ts'
import { type IntBlocks, packedBytes, put } from './int-blocks.ts'
import type { MatrixProduct } from './matrix-product.ts'

export interface GptqOptions {
  readonly bits: 4 | 8
  /** Inputs that share a scale: 32, 64 or 128. */
  readonly groupSize: number
  readonly symmetric: boolean
  /** Quantize the inputs with the largest activations first (desc_act). */
  readonly actOrder: boolean
  /** Part of the Hessian's mean diagonal that is added to it. */
  readonly damping: number
}

/** A matrix [rows, columns] by the path of its module. */
export interface Matrix {
  readonly path: string
  readonly rows: number
  readonly values: Float32Array
}

/** Columns that are quantized before their errors reach the ones behind the block. */
const BLOCK = 128
/** Trial scales, as parts of the one that covers a group's whole range. */
const SHRINKS = [1, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7]

/**
 * GPTQ (arXiv:2210.17323) in the form that QuIP proves equal to it (LDLQ, arXiv:2307.13304, theorem 6), which needs the
 * factors of H = (I + U)·D·(I + U)ᵀ and not those of its inverse. Column by column, the errors E = W − Ŵ of the earlier
 * columns are fed into the next one before it is rounded:
 *   ŵ_k = round(w_k + Σ_{i<k} E_i·U_ik),
 * which leaves the error Σ_k D_k·|ŵ_k − (w_k + …)|² of the outputs. A group's scale is the one of a few trial scales with
 * the smallest such sum. Matrices that read the same input share H, so they go through together.
 *
 * @param matrices all with `columns` inputs.
 * @param hessian Xᵀ·X of their inputs X, [columns, columns]; destroyed.
 * @returns blocks by path, scales rounded to float16, as files keep them.
 * @throws EngineError `invalid` for a Hessian that is not positive definite after damping.
 */
export async function gptq(
  matrices: readonly Matrix[],
  columns: number,
  hessian: Float32Array,
  options: GptqOptions,
  product: MatrixProduct,
): Promise<Map<string, OrderedBlocks>> {
  const { dead } = dampen(hessian, columns, options.damping)
  const order = options.actOrder ? byActivation(hessian, columns) : undefined
  const ordered = order ? permuted(hessian, columns, order) : hessian
  const { upper, diagonal } = await factorHessian(ordered, columns, product)
  const rows = matrices.reduce((sum, matrix) => sum + matrix.rows, 0)
  const weights = transposed(matrices, columns, rows, order, dead)
  const state = newState(weights, columns, rows, options)
  for (let start = 0; start < columns; start += BLOCK) {
    const end = Math.min(start + BLOCK, columns)
    if (start > 0) await feedEarlier(state, upper, start, end, product)
    for (let column = start; column < end; column++) {
      if (column % options.groupSize === 0) chooseScales(state, diagonal, column)
      roundColumn(state, column)
      feedWithin(state, upper, column, end)
    }
  }
  return packMatrices(matrices, state, order)
}

/** Everything is transposed, [columns, rows], so that inner loops run over consecutive rows. */
interface State extends GptqOptions {
  readonly columns: number
  readonly rows: number
  readonly weights: Float32Array
  /** W − Ŵ. */
  readonly errors: Float32Array
  /** What earlier errors add to each weight. */
  readonly feedback: Float32Array
  readonly codes: Uint8Array
  readonly scales: Float32Array
  readonly zeros: Uint8Array
}

function newState(weights: Float32Array, columns: number, rows: number, options: GptqOptions): State {
  const groups = Math.ceil(columns / options.groupSize)
  return {
    ...options,
    columns,
    rows,
    weights,
    errors: new Float32Array(weights.length),
    feedback: new Float32Array(weights.length),
    codes: new Uint8Array(weights.length),
    scales: new Float32Array(groups * rows),
    zeros: new Uint8Array(groups * rows),
  }
}

/** H += damping · mean(diag H) · I; inputs that are always zero get a diagonal and lose their weights. */
function dampen(hessian: Float32Array, columns: number, damping: number): { dead: Uint8Array } {
  const dead = new Uint8Array(columns)
  let mean = 0
  for (let i = 0; i < columns; i++) {
    mean += hessian[i * columns + i]! / columns
    if (hessian[i * columns + i] === 0) dead[i] = 1
  }
  for (let i = 0; i < columns; i++) hessian[i * columns + i]! += dead[i] ? 1 : damping * mean
  return { dead }
}

function byActivation(hessian: Float32Array, columns: number): Int32Array {
  const order = Int32Array.from({ length: columns }, (_, index) => index)
  return order.sort((a, b) => hessian[b * columns + b]! - hessian[a * columns + a]! || a - b)
}

function permuted(hessian: Float32Array, columns: number, order: Int32Array): Float32Array {
  const result = new Float32Array(hessian.length)
  for (let i = 0; i < columns; i++) {
    const from = order[i]! * columns
    for (let j = 0; j < columns; j++) result[i * columns + j] = hessian[from + order[j]!]!
  }
  return result
}

function transposed(
  matrices: readonly Matrix[],
  columns: number,
  rows: number,
  order: Int32Array | undefined,
  dead: Uint8Array,
): Float32Array {
  const weights = new Float32Array(columns * rows)
  let first = 0
  for (const matrix of matrices) {
    for (let place = 0; place < columns; place++) {
      const input = order ? order[place]! : place
      if (dead[input]) continue
      const to = place * rows + first
      for (let row = 0; row < matrix.rows; row++) weights[to + row] = matrix.values[row * columns + input]!
    }
    first += matrix.rows
  }
  return weights
}

/** feedback[start, end) = Uᵀ·E of all columns before the block. */
async function feedEarlier(
  { columns, rows, errors, feedback }: State,
  upper: Float32Array,
  start: number,
  end: number,
  product: MatrixProduct,
): Promise<void> {
  const factors = columnsOf(upper, columns, start, start, end)
  feedback.set(await product.run(factors, errors.subarray(0, start * rows), start), start * rows)
}

/** Adds one column's error to the columns behind it in its block. */
function feedWithin(
  { columns, rows, errors, feedback }: State,
  upper: Float32Array,
  column: number,
  end: number,
): void {
  const error = errors.subarray(column * rows, (column + 1) * rows)
  for (let later = column + 1; later < end; later++) {
    const factor = upper[column * columns + later]!
    const to = later * rows
    for (let row = 0; row < rows; row++) feedback[to + row]! += factor * error[row]!
  }
}

function roundColumn(state: State, column: number): void {
  const { rows, weights, errors, feedback, codes, scales, zeros, bits } = state
  const highest = 2 ** bits - 1
  const group = Math.floor(column / state.groupSize) * rows
  const at = column * rows
  for (let row = 0; row < rows; row++) {
    const scale = scales[group + row]!
    const zero = zeros[group + row]!
    const wanted = weights[at + row]! + feedback[at + row]!
    const code = scale > 0 ? Math.max(0, Math.min(highest, Math.round(wanted / scale) + zero)) : zero
    codes[at + row] = code
    errors[at + row] = weights[at + row]! - (code - zero) * scale
  }
}

/** The scale and zero point of every row's group that begins at a column. */
function chooseScales(state: State, diagonal: Float32Array, column: number): void {
  const { rows, weights, feedback, scales, zeros, bits, symmetric, groupSize, columns } = state
  const size = Math.min(groupSize, columns - column)
  const highest = 2 ** bits - 1
  const middle = 2 ** (bits - 1)
  const group = (column / groupSize) * rows
  const values = new Float32Array(size)
  for (let row = 0; row < rows; row++) {
    let [low, high] = [0, 0]
    for (let i = 0; i < size; i++) {
      const at = (column + i) * rows + row
      const value = weights[at]! + feedback[at]!
      values[i] = value
      if (value < low) low = value
      else if (value > high) high = value
    }
    const widest = symmetric ? Math.max(-low, high) / (middle - 1) : (high - low) / highest
    let best = Number.POSITIVE_INFINITY
    for (const shrink of SHRINKS) {
      const scale = float16Value(float16Bits(widest * shrink))
      if (scale === 0) break
      const zero = symmetric ? middle : Math.max(0, Math.min(highest, Math.round((-low * shrink) / scale)))
      const loss = lossOf(values, diagonal, column, scale, zero, highest)
      if (loss >= best) continue
      best = loss
      scales[group + row] = scale
      zeros[group + row] = zero
    }
    if (best === Number.POSITIVE_INFINITY) zeros[group + row] = middle
  }
}

/** Σ D_k·(w_k − round(w_k))². */
function lossOf(
  values: Float32Array,
  diagonal: Float32Array,
  column: number,
  scale: number,
  zero: number,
  highest: number,
): number {
  const inverse = 1 / scale
  let loss = 0
  for (let i = 0; i < values.length; i++) {
    const code = Math.max(0, Math.min(highest, Math.round(values[i]! * inverse) + zero))
    const error = values[i]! - (code - zero) * scale
    loss += diagonal[column + i]! * error * error
  }
  return loss
}

/** Cuts the common state into each matrix's own blocks. */
function packMatrices(
  matrices: readonly Matrix[],
  state: State,
  order: Int32Array | undefined,
): Map<string, OrderedBlocks> {
  const { bits, columns, groupSize, rows: allRows } = state
  const groups = Math.ceil(columns / groupSize)
  const packed = new Map<string, OrderedBlocks>()
  let first = 0
  for (const { path, rows } of matrices) {
    const blocks: IntBlocks = {
      bits,
      rows,
      columns,
      blockSize: groupSize,
      codes: new Uint8Array(packedBytes(rows * columns, bits)),
      scales: new Float32Array(rows * groups),
      zeros: new Uint8Array(packedBytes(rows * groups, bits)),
    }
    for (let row = 0; row < rows; row++) {
      for (let k = 0; k < columns; k++) {
        put(blocks.codes, row * columns + k, state.codes[k * allRows + first + row]!, bits)
      }
      for (let group = 0; group < groups; group++) {
        const from = group * allRows + first + row
        blocks.scales[row * groups + group] = state.scales[from]!
        put(blocks.zeros, row * groups + group, state.zeros[from]!, bits)
      }
    }
    packed.set(path, { blocks, order })
    first += rows
  }
  return packed
}
