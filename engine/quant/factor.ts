import { EngineError } from '../errors.ts'
import type { MatrixProduct } from './matrix-product.ts'

/** Columns that are factored in one step. */
const BLOCK = 64

/**
 * Writes H = (I + U)·D·(I + U)ᵀ with U strictly upper triangular and D diagonal (QuIP, arXiv:2307.13304, section 3.1),
 * from the Cholesky factor of H read backwards: with J the reversal, J·H·J = L·Lᵀ gives H = R·Rᵀ for R = J·L·J, so
 * I + U = R·diag(1/R) and D = diag(R)².
 *
 * @param hessian symmetric positive definite [size, size]; destroyed.
 * @returns U as [size, size] with zeros on and below its diagonal, and D.
 * @throws EngineError `invalid` when it is not positive definite.
 */
export async function factorHessian(
  hessian: Float32Array,
  size: number,
  product: MatrixProduct,
): Promise<{ upper: Float32Array; diagonal: Float32Array }> {
  const factor = await transposedCholesky(hessian.reverse(), size, product)
  const upper = new Float32Array(size * size)
  const diagonal = new Float32Array(size)
  for (let column = 0; column < size; column++) {
    const reversed = size - 1 - column
    const pivot = factor[reversed * size + reversed]!
    diagonal[column] = pivot * pivot
    // Row `reversed` of Lᵀ is column `reversed` of L, whose entries below the diagonal are R's above it.
    for (let row = 0; row < column; row++) {
      upper[row * size + column] = factor[reversed * size + (size - 1 - row)]! / pivot
    }
  }
  return { upper, diagonal }
}

/**
 * Lᵀ of H = L·Lᵀ, block row by block row: what earlier rows contribute is one product on the runtime, the rest is solved
 * here. Rows hold garbage left of their block, which nothing reads.
 */
async function transposedCholesky(
  hessian: Float32Array,
  size: number,
  product: MatrixProduct,
): Promise<Float32Array> {
  const rows = new Float32Array(size * size)
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
export function columnsOf(
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
