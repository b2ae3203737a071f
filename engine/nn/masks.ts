import { floatTensor, intTensor, type Tensor } from '../tensor.ts'

/** Added to a score that must not count: large enough to vanish in float32's softmax, small enough not to overflow. */
export const MASKED = -1e30

/** float32 [1, 1, 1, length, length]: row i sees columns 0..i. */
export function causalMask(length: number): Tensor {
  const data = new Float32Array(length * length)
  for (let row = 0; row < length; row++) data.fill(MASKED, row * length + row + 1, (row + 1) * length)
  return floatTensor(data, [1, 1, 1, length, length])
}

/** int64 [rows, length]: start, start + 1, … in every row. */
export function consecutivePositions(rows: number, length: number, start = 0): Tensor {
  const data = BigInt64Array.from({ length: rows * length }, (_, index) => BigInt(start + (index % length)))
  return intTensor(data, [rows, length])
}
