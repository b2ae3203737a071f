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
 * Lᵀ of H = L·Lᵀ, block row by block row: what earlier rows contribute is one product on the runtime, the rest is solved
 * here, in the Hessian's place. Rows hold garbage left of their block, which nothing reads.
 */
async function transposedCholesky(
  hessian: Float32Array,
  size: number,
  product: MatrixProduct,
): Promise<Float32Array> {
  const rows = hessian
  for (let start = 0; start < size; start += BLOCK) {
    const end = Math.min(start + BLOCK, size)
    if (start > 0) {
      const above = columnsOf(rows, size, start, start, end)
      const earlier = await product.run(above, rows.subarray(0, start * size), start)
      for (let i = 0; i < earlier.length; i++) hessian[start * size + i]! -= earlier[i]!
    }
    solveBlock(hessian, rows, size, start, end)
  }
  return rows
}

function solveBlock(
  hessian: Float32Array,
  rows: Float32Array,
  size: number,
  start: number,
  end: number,
): void {
  for (let k = start; k < end; k++) {
    const row = hessian.subarray(k * size, (k + 1) * size)
    for (let j = start; j < k; j++) {
      const known = rows.subarray(j * size, (j + 1) * size)
      const factor = known[k]!
      for (let column = k; column < size; column++) row[column]! -= factor * known[column]!
    }
    const pivot = row[k]!
    if (!(pivot > 0)) {
      throw new EngineError(
        'invalid',
        'hessian_not_positive',
        'the calibration data gives no positive definite Hessian; raise the damping or give more samples',
        { param: 'damp_percent' },
      )
    }
    const inverse = 1 / Math.sqrt(pivot)
    for (let column = k; column < size; column++) rows[k * size + column] = row[column]! * inverse
  }
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
