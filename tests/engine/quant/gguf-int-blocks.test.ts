import { expect, it } from 'vitest'
import { dequantize } from '../../../engine/gguf/dequantize.ts'
import { dequantizeIntBlocks } from '../../../engine/packed/int-blocks.ts'
import { FeedbackRounding } from '../../../engine/quant/feedback-rounding.ts'
import { GGUF_GRIDS, type GgufIntType, packGgufBlocks } from '../../../engine/quant/gguf-int-blocks.ts'
import { shrinksOf } from '../../../engine/quant/gptq.ts'
import { gaussian } from '../weights/tiny-model.ts'

const [ROWS, COLUMNS] = [5, 96]

function rounded(type: GgufIntType, signedScales: boolean = GGUF_GRIDS[type].signedScales) {
  const grid = { ...GGUF_GRIDS[type], signedScales }
  const weights = { feedback: undefined, diagonal: new Float32Array(COLUMNS).fill(1) }
  const rounding = new FeedbackRounding({ ...grid, columns: COLUMNS, shrinks: shrinksOf(grid) }, weights)
  const inTurn = Int32Array.from({ length: COLUMNS }, (_, input) => input)
  return rounding.quantize(gaussian(ROWS * COLUMNS, 4).fill(0, 32, 64), ROWS, inTurn)
}

const read = (type: GgufIntType) => dequantize(type, packGgufBlocks(rounded(type), type), ROWS * COLUMNS)

it.each(['Q4_0', 'Q8_0'] as const)('%s holds integer blocks exactly', (type) => {
  expect(read(type).map((value) => value + 0)).toEqual(
    dequantizeIntBlocks(rounded(type)).map((value) => value + 0),
  )
})

it('Q4_1 holds them but for the rounding of its minima', () => {
  const exact = dequantizeIntBlocks(rounded('Q4_1'))
  const largest = exact.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  for (const [i, value] of read('Q4_1').entries())
    expect(Math.abs(value - exact[i]!)).toBeLessThan(largest * 2 ** -10)
})

it('scales of both signs leave less error', () => {
  const error = (signed: boolean) => {
    const kept = dequantizeIntBlocks(rounded('Q4_0', signed))
    return gaussian(ROWS * COLUMNS, 4)
      .fill(0, 32, 64)
      .reduce((sum, value, i) => sum + (value - kept[i]!) ** 2, 0)
  }
  expect(rounded('Q4_0').scales.some((scale) => scale < 0)).toBe(true)
  expect(error(true)).toBeLessThan(0.95 * error(false))
})
