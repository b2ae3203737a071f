import { EngineError } from '../errors.ts'
import type { MatrixProduct } from './matrix-product.ts'

/** Columns that are factored in one step. */
const BLOCK = 64

/** H = (I + U)·D·(I + U)ᵀ. */
export interface Factors {
  /** Uᵀ as [size, size]: row k holds the U_ik, i < k; what stands on and right of the diagonal means nothing. */
  readonly feedback: Float32Array
  readonly diagonal: Float32Array
}

/**
 * Writes H = (I + U)·D·(I + U)ᵀ with U strictly upper triangular and D diagonal (QuIP, arXiv:2307.13304, section 3.1),
 * from the Cholesky factor of H read backwards: with J the reversal, J·H·J = L·Lᵀ gives H = R·Rᵀ for R = J·L·J, so
 * I + U = R·diag(1/R) and D = diag(R)².
 *
 * @param hessian symmetric positive definite [size, size]; destroyed.
 * @throws EngineError `invalid` when it is not positive definite.
 */
export async function factorHessian(
  hessian: Float32Array,
  size: number,
  product: MatrixProduct,
): Promise<Factors> {
  // Read backwards, row k of Lᵀ is row (size − 1 − k) of Rᵀ.
  const feedback = (await transposedCholesky(hessian.reverse(), size, product)).reverse()
  const diagonal = new Float32Array(size)
  for (let column = 0; column < size; column++) {
    const row = feedback.subarray(column * size, (column + 1) * size)
    const pivot = row[column]!
    diagonal[column] = pivot * pivot
    for (let i = 0; i < column; i++) row[i]! /= pivot
  }
  return { feedback, diagonal }
}

/**
 * R = Lᵀ of H = L·Lᵀ, block row by block row, in the Hessian's place: what earlier rows contribute is one product on the
 * runtime, and with R₀ᵀ·R₀ the block on the diagonal, the rest of its rows is another, R₀⁻ᵀ·H. Rows hold garbage left of their
 * diagonal, which nothing reads.
 */
async function transposedCholesky(
  hessian: Float32Array,
  size: number,
  product: MatrixProduct,
): Promise<Float32Array> {
  for (let start = 0; start < size; start += BLOCK) {
    const count = Math.min(BLOCK, size - start)
    const rows = hessian.subarray(start * size, (start + count) * size)
    if (start > 0) {
      const above = columnsOf(hessian, size, start, start, start + count)
      subtract(rows, await product.run(above, hessian.subarray(0, start * size), start))
    }
    rows.set(await product.run(inverseOfRoot(rows, size, start, count), rows, count))
  }
  return hessian
}

/** A loop of its own: V8 is slow at those of async functions. */
function subtract(values: Float32Array, others: Float32Array): void {
  for (let i = 0; i < values.length; i++) values[i]! -= others[i]!
}

/** R⁻¹ [count, count] of RᵀR, the block at column `start` of rows [count, size]; upper triangles alone are read. */
function inverseOfRoot(rows: Float32Array, size: number, start: number, count: number): Float32Array {
  const root = new Float64Array(count * count)
  for (let i = 0; i < count; i++) {
    for (let j = i; j < count; j++) {
      let rest = rows[i * size + start + j]!
      for (let k = 0; k < i; k++) rest -= root[k * count + i]! * root[k * count + j]!
      if (j === i && !(rest > 0)) throw notPositive()
      root[i * count + j] = j === i ? Math.sqrt(rest) : rest / root[i * count + i]!
    }
  }
  // R·S = I, column by column from the diagonal up: S_ij = −Σ_{i<k≤j} R_ik·S_kj / R_ii
  const inverse = new Float64Array(count * count)
  for (let j = 0; j < count; j++) {
    inverse[j * count + j] = 1 / root[j * count + j]!
    for (let i = j - 1; i >= 0; i--) {
      let sum = 0
      for (let k = i + 1; k <= j; k++) sum += root[i * count + k]! * inverse[k * count + j]!
      inverse[i * count + j] = -sum / root[i * count + i]!
    }
  }
  return Float32Array.from(inverse)
}

function notPositive(): EngineError {
  return new EngineError(
    'invalid',
    'hessian_not_positive',
    'the calibration data gives no positive definite Hessian; raise the damping or give more samples',
    { param: 'damp_percent' },
  )
}

/** Columns [from, to) of the first `count` rows, as a matrix of its own. */
function columnsOf(
  matrix: Float32Array,
  width: number,
  count: number,
  from: number,
  to: number,
): Float32Array {
  const part = new Float32Array(count * (to - from))
  for (let row = 0; row < count; row++) {
    part.set(matrix.subarray(row * width + from, row * width + to), row * (to - from))
  }
  return part
}
