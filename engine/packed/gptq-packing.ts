import type { OrderedBlocks } from './gptq-reader.ts'
import { codeAt, put } from './int-blocks.ts'

/** The tensors of one module in GPTQ's layout; see GptqTensors for their shapes. */
export interface PackedGptq {
  qweight: Int32Array
  qzeros: Int32Array
  /** int32 [in]: the group of each input. */
  groupIndex: Int32Array
  /** [groups, out]. */
  scales: Float32Array
}

/** The inverse of unpackGptq. @param version 1 stores zero points one too small, 2 as they are. */
export function packGptq({ blocks, order }: OrderedBlocks, version: 1 | 2): PackedGptq {
  const { bits, rows, columns, blockSize } = blocks
  const perWord = 32 / bits
  const groups = Math.ceil(columns / blockSize)
  const groupIndex = new Int32Array(columns)
  for (let place = 0; place < columns; place++) {
    groupIndex[order ? order[place]! : place] = Math.floor(place / blockSize)
  }
  // Codes of consecutive inputs share bytes in both layouts, so that words change places as they are.
  const { buffer } = order ? inOwnOrder(blocks, order) : blocks.codes.slice()
  const qweight = transposed(new Int32Array(buffer), rows, columns / perWord)
  const qzeros = new Int32Array(groups * (rows / perWord))
  const scales = new Float32Array(groups * rows)
  for (let group = 0; group < groups; group++) {
    for (let row = 0; row < rows; row++) {
      const zero = codeAt(blocks.zeros, row * groups + group, bits) - (version === 1 ? 1 : 0)
      qzeros[group * (rows / perWord) + Math.floor(row / perWord)]! |= zero << (bits * (row % perWord))
      scales[group * rows + row] = blocks.scales[row * groups + group]!
    }
  }
  return { qweight, qzeros, groupIndex, scales }
}

/** Codes with every input back in its own place. */
function inOwnOrder({ bits, rows, columns, codes }: OrderedBlocks['blocks'], order: Int32Array): Uint8Array {
  const result = new Uint8Array(codes.length)
  for (let first = 0; first < rows * columns; first += columns) {
    for (let place = 0; place < columns; place++) {
      put(result, first + order[place]!, codeAt(codes, first + place, bits), bits)
    }
  }
  return result
}

/** Rows and columns that stay in the cache together. */
const TILE = 32

/** [rows, columns] to [columns, rows]. */
function transposed(words: Int32Array, rows: number, columns: number): Int32Array {
  const result = new Int32Array(words.length)
  for (let top = 0; top < rows; top += TILE) {
    const bottom = Math.min(rows, top + TILE)
    for (let column = 0; column < columns; column++) {
      for (let row = top; row < bottom; row++) result[column * rows + row] = words[row * columns + column]!
    }
  }
  return result
}
