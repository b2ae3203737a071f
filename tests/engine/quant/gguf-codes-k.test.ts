import { describe, expect, it } from 'vitest'
import { dequantize } from '../../../engine/gguf/dequantize.ts'
import { quantizeBlocks } from '../../../engine/quant/gguf-blocks.ts'
import { gridOf, SUPER_GRIDS, setCodes } from '../../../engine/quant/gguf-codes-k.ts'
import { createRandom } from '../../../engine/random.ts'
import { gaussian } from '../weights/tiny-model.ts'

const COUNT = 256 * 6

describe.each(['Q4_K', 'Q6_K'] as const)('%s', (type) => {
  it('stands for (code − zero) · scale with the codes that are put into it', () => {
    const packed = quantizeBlocks(gaussian(COUNT, 3), type)
    const { scales, zeros, highest } = gridOf(type, packed)
    const random = createRandom(5)
    const codes = Uint8Array.from({ length: COUNT }, () => random.nextInt(highest + 1))
    setCodes(type, packed, codes)
    const { groupSize } = SUPER_GRIDS[type]
    for (const [i, value] of dequantize(type, packed, COUNT).entries()) {
      const group = Math.floor(i / groupSize)
      const expected = (codes[i]! - zeros[group]!) * scales[group]!
      expect(Math.abs(value - expected)).toBeLessThan(1e-5 * highest * Math.abs(scales[group]!))
    }
    expect(gridOf(type, packed)).toEqual({ scales, zeros, highest })
  })

  it('keeps its bytes when its own codes are put into it', () => {
    const packed = quantizeBlocks(gaussian(COUNT, 4), type)
    const { scales, zeros } = gridOf(type, packed)
    const values = dequantize(type, packed, COUNT)
    const own = Uint8Array.from(values, (value, i) => {
      const group = Math.floor(i / SUPER_GRIDS[type].groupSize)
      return Math.round(value / scales[group]! + zeros[group]!)
    })
    const again = packed.slice()
    setCodes(type, again, own)
    expect(again).toEqual(packed)
  })
})
