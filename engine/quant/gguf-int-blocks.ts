import { codeAt, type IntBlocks } from '../packed/int-blocks.ts'
import { float16Bits } from '../weights/dtypes.ts'

/** GGUF's block types whose values are those of integer blocks of 32. */
export type GgufIntType = 'Q4_0' | 'Q4_1' | 'Q8_0'

/** Inputs that share a scale in all of them. */
const SIZE = 32

/** What integer blocks must be like to become blocks of a type. */
export const GGUF_GRIDS = {
  Q4_0: { bits: 4, groupSize: SIZE, symmetric: true, signedScales: true },
  Q4_1: { bits: 4, groupSize: SIZE, symmetric: false, signedScales: false },
  Q8_0: { bits: 8, groupSize: SIZE, symmetric: true, signedScales: false },
} as const

export const isGgufIntType = (type: string): type is GgufIntType => type in GGUF_GRIDS

/**
 * Writes integer blocks of 32 as a GGUF type's blocks (gguf-blocks-simple.ts): d·(q − 8) and d·q are what codes, a middle zero
 * point and scales of float16 stand for; of Q4_1 the minimum −zero·scale is rounded to float16.
 *
 * @returns [rows, packed bytes of a row].
 */
export function packGgufBlocks(blocks: IntBlocks, type: GgufIntType): Uint8Array {
  const { rows, columns, codes, scales, zeros } = blocks
  const headBytes = type === 'Q4_1' ? 4 : 2
  const blockBytes = headBytes + (SIZE * blocks.bits) / 8
  const target = new Uint8Array(((rows * columns) / SIZE) * blockBytes)
  const view = new DataView(target.buffer)
  for (let block = 0, to = 0; to < target.length; block++, to += blockBytes) {
    const scale = scales[block]!
    view.setUint16(to, float16Bits(scale), true)
    if (type === 'Q4_1') view.setUint16(to + 2, float16Bits(-codeAt(zeros, block, 4) * scale), true)
    const from = block * SIZE
    if (type === 'Q8_0') {
      for (let i = 0; i < SIZE; i++) target[to + 2 + i] = codes[from + i]! - 128
    } else {
      const first = to + headBytes
      for (let i = 0; i < SIZE / 2; i++) {
        target[first + i] = codeAt(codes, from + i, 4) | (codeAt(codes, from + i + SIZE / 2, 4) << 4)
      }
    }
  }
  return target
}
