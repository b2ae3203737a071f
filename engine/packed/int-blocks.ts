/**
 * A matrix [rows, columns] of unsigned integers in blocks along its rows: w = (code - zero) · scale, with one scale and
 * one zero point for each block. Codes of 4 bits share a byte, the first in the low half, as ONNX packs uint4; a last
 * block may be shorter.
 */
export interface IntBlocks {
  readonly bits: 4 | 8
  readonly rows: number
  readonly columns: number
  readonly blockSize: number
  /** [rows, columns], packed. */
  readonly codes: Uint8Array
  /** [rows, blocks of a row]. */
  readonly scales: Float32Array
  /** [rows, blocks of a row], packed like the codes. */
  readonly zeros: Uint8Array
}

export interface IntBlockOptions {
  bits: 4 | 8
  rows: number
  columns: number
  blockSize: number
  /** The zero point stays in the middle of the range, so that w and -w are kept alike. */
  symmetric: boolean
}

/** The values that the blocks stand for, [rows, columns]. */
export function dequantizeIntBlocks(matrix: IntBlocks): Float32Array {
  const { bits, rows, columns, blockSize, codes, scales, zeros } = matrix
  const values = new Float32Array(rows * columns)
  let block = 0
  for (let row = 0; row < rows; row++) {
    const rowEnd = (row + 1) * columns
    for (let start = row * columns; start < rowEnd; start += blockSize, block++) {
      const end = Math.min(start + blockSize, rowEnd)
      const [zero, scale] = [codeAt(zeros, block, bits), scales[block]!]
      for (let i = start; i < end; i++) values[i] = (codeAt(codes, i, bits) - zero) * scale
    }
  }
  return values
}

/** Rows [first, first + count) of a matrix, over the same memory; the part has to begin at a whole byte. */
export function rowsOf(matrix: IntBlocks, first: number, count: number): IntBlocks {
  const { bits, columns, blockSize, codes, scales, zeros } = matrix
  const blocks = Math.ceil(columns / blockSize)
  const part = (packed: Uint8Array, perRow: number) =>
    packed.subarray(packedBytes(first * perRow, bits), packedBytes((first + count) * perRow, bits))
  return {
    ...matrix,
    rows: count,
    codes: part(codes, columns),
    scales: scales.subarray(first * blocks, (first + count) * blocks),
    zeros: part(zeros, blocks),
  }
}

/** Bytes of `count` codes. */
export function packedBytes(count: number, bits: 4 | 8): number {
  return Math.ceil((count * bits) / 8)
}

/** Code `index` of a packed array. */
export function codeAt(packed: Uint8Array, index: number, bits: 4 | 8): number {
  if (bits === 8) return packed[index]!
  return (packed[index >> 1]! >> (4 * (index & 1))) & 15
}

/** Sets code `index` of a packed array that holds a zero there. */
export function put(packed: Uint8Array, index: number, code: number, bits: 4 | 8): void {
  if (bits === 8) packed[index] = code
  else packed[index >> 1]! |= code << (4 * (index & 1))
}

/** `count` packed codes, a byte for each. */
export function unpackCodes(packed: Uint8Array, count: number, bits: 4 | 8): Uint8Array {
  const codes = new Uint8Array(count)
  for (let i = 0; i < count; i++) codes[i] = codeAt(packed, i, bits)
  return codes
}

/** The inverse of unpackCodes. */
export function packCodes(codes: Uint8Array, bits: 4 | 8): Uint8Array {
  const packed = new Uint8Array(packedBytes(codes.length, bits))
  for (const [i, code] of codes.entries()) put(packed, i, code, bits)
  return packed
}
