import type { GraphBuilder } from '../graph/builder.ts'
import type { Value } from '../graph/values.ts'
import { codeAt, type IntBlocks, packedBytes, put } from './int-blocks.ts'

/** A matrix as onnxruntime's MatMulNBits reads it. */
export interface NBitsMatrix {
  /** [rows, blocks, blockSize · bits / 8]; the last block of a row is filled up with its zero point. */
  readonly codes: Uint8Array
  /** [rows, blocks]. */
  readonly scales: Float32Array
  /** [rows, ⌈blocks · bits / 8⌉]: each row begins at a byte. */
  readonly zeros: Uint8Array
}

/** Sizes of the parts. */
export function nbitsShapes({
  bits,
  rows,
  columns,
  blockSize,
}: Omit<IntBlocks, 'codes' | 'scales' | 'zeros'>) {
  const blocks = Math.ceil(columns / blockSize)
  return {
    codes: [rows, blocks, packedBytes(blockSize, bits)],
    scales: [rows, blocks],
    zeros: [rows, packedBytes(blocks, bits)],
  } as const
}

/**
 * x·Wᵀ of a matrix in that form.
 *
 * @param level 4 rounds x to 8 bits, block by block of each row; 0 leaves it as it is.
 */
export function nbitsProduct(
  g: GraphBuilder,
  x: Value,
  { bits, rows, columns, blockSize }: Omit<IntBlocks, keyof NBitsMatrix>,
  level: 0 | 4,
  { codes, scales, zeros }: Record<keyof NBitsMatrix, Value>,
): Value {
  const attributes = { K: columns, N: rows, bits, block_size: blockSize, accuracy_level: level }
  return g.MatMulNBits(x, codes, scales, zeros, attributes)
}

/** Lays blocks out for MatMulNBits (onnxruntime, ContribOperators.md). */
export function packNBits(matrix: IntBlocks): NBitsMatrix {
  const { bits, rows, columns, blockSize } = matrix
  const blocks = Math.ceil(columns / blockSize)
  const blockBytes = packedBytes(blockSize, bits)
  const zeroBytes = packedBytes(blocks, bits)
  const codes = new Uint8Array(rows * blocks * blockBytes)
  const zeros = new Uint8Array(rows * zeroBytes)
  for (let row = 0; row < rows; row++) {
    const rowZeros = zeros.subarray(row * zeroBytes, (row + 1) * zeroBytes)
    for (let block = 0; block < blocks; block++) {
      const zero = codeAt(matrix.zeros, row * blocks + block, bits)
      put(rowZeros, block, zero, bits)
      const from = (row * blocks + block) * blockBytes
      const target = codes.subarray(from, from + blockBytes)
      for (let i = 0; i < blockSize; i++) {
        const column = block * blockSize + i
        put(target, i, column < columns ? codeAt(matrix.codes, row * columns + column, bits) : zero, bits)
      }
    }
  }
  return { codes, scales: matrix.scales, zeros }
}
