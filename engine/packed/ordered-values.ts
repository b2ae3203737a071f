import type { OrderedBlocks } from './gptq-reader.ts'
import { dequantizeIntBlocks } from './int-blocks.ts'

/** The values that blocks stand for, inputs back in their own order. */
export function orderedValues({ blocks, order }: OrderedBlocks): Float32Array {
  const values = dequantizeIntBlocks(blocks)
  if (!order) return values
  const { rows, columns } = blocks
  const result = new Float32Array(values.length)
  for (let row = 0; row < rows; row++) {
    for (let place = 0; place < columns; place++) {
      result[row * columns + order[place]!] = values[row * columns + place]!
    }
  }
  return result
}
