import type { OrderedBlocks } from './gptq-reader.ts'
import { codeAt } from './int-blocks.ts'

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
  const { bits, rows, columns, blockSize, codes } = blocks
  const perWord = 32 / bits
  const groups = Math.ceil(columns / blockSize)
  const qweight = new Int32Array((columns / perWord) * rows)
  const groupIndex = new Int32Array(columns)
  for (let place = 0; place < columns; place++) {
    const input = order ? order[place]! : place
    groupIndex[input] = Math.floor(place / blockSize)
    const word = Math.floor(input / perWord) * rows
    const shift = bits * (input % perWord)
    for (let row = 0; row < rows; row++) {
      qweight[word + row]! |= codeAt(codes, row * columns + place, bits) << shift
    }
  }
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
