import { describe, expect, it } from 'vitest'
import { unpackAwq } from '../../../engine/packed/awq-reader.ts'
import { byteTable, dequantizeByCodebook, FP4, NF4 } from '../../../engine/packed/codebook-blocks.ts'
import { unpackGptq } from '../../../engine/packed/gptq-reader.ts'
import { codeAt, dequantizeIntBlocks } from '../../../engine/packed/int-blocks.ts'
import { quantizeByCodebook } from '../../../engine/quant/round-codebook-blocks.ts'
import { quantizeIntBlocks } from '../../../engine/quant/round-int-blocks.ts'
import { createRandom } from '../../../engine/random.ts'
import { gaussian } from '../weights/tiny-model.ts'

const largestDifference = (a: Float32Array, b: Float32Array) =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0)

describe.each([
  ['nf4', NF4],
  ['fp4', FP4],
])('%s', (_, table) => {
  it('keeps every value of the table exactly', () => {
    const values = Float32Array.from([...table, ...table], (value, i) => (i < 16 ? value : value * 8))
    expect(dequantizeByCodebook(quantizeByCodebook(values, table, 16), table).map((v) => v + 0)).toEqual(
      values.map((v) => v + 0),
    )
  })

  it('takes the nearest value of the table', () => {
    const values = gaussian(512, 3)
    const { codes, scales } = quantizeByCodebook(values, table, 64)
    const kept = dequantizeByCodebook({ codes, scales }, table)
    for (const [i, value] of values.entries()) {
      const scale = scales[Math.floor(i / 64)]!
      const best = Math.min(...table.map((entry) => Math.abs(entry * scale - value)))
      expect(Math.abs(kept[i]! - value)).toBeCloseTo(best, 6)
    }
  })

  it('is read by a table of bytes, high half first', () => {
    const { codes, scales } = quantizeByCodebook(gaussian(64, 4), table, 64)
    const pairs = byteTable(table)
    const values = Float32Array.from(
      { length: 64 },
      (_, i) => pairs[2 * codes[i >> 1]! + (i & 1)]! * scales[0]!,
    )
    expect(values).toEqual(dequantizeByCodebook({ codes, scales }, table))
  })
})

it('NF4 scales by the largest value and packs the first code into the high half', () => {
  const { codes, scales } = quantizeByCodebook(Float32Array.of(0.5, -1, 0.04, 0, 3, -3, 1.5, 0.3), NF4, 4)
  expect([...scales]).toEqual([1, 3])
  expect([...codes]).toEqual([0xc0, 0x87, 0xf0, 0xc8])
})

describe.each([4, 8] as const)('%d-bit integer blocks', (bits) => {
  it.each([true, false])('are off by half a step at most, symmetric %s', (symmetric) => {
    const values = gaussian(6 * 40, 5)
    const matrix = quantizeIntBlocks(values, { bits, rows: 6, columns: 40, blockSize: 16, symmetric })
    const largestScale = Math.max(...matrix.scales)
    expect(largestDifference(dequantizeIntBlocks(matrix), values)).toBeLessThan(0.51 * largestScale)
  })

  it('keep zero exactly, and a block of zeros', () => {
    const values = Float32Array.of(0, 1, 2, 5, 0, 0, 0, 0)
    for (const symmetric of [true, false]) {
      const kept = dequantizeIntBlocks(
        quantizeIntBlocks(values, { bits, rows: 1, columns: 8, blockSize: 4, symmetric }),
      )
      expect([kept[0], ...kept.slice(4)]).toEqual([0, 0, 0, 0, 0])
    }
  })
})

it.each([
  [4, true],
  [4, false],
  [8, true],
  [8, false],
] as const)('%d-bit blocks of whole steps become what others do, symmetric %s', (bits, symmetric) => {
  const [rows, columns] = [7, 96] // a block of 64 and one of 32 in each row
  const values = gaussian(rows * columns, 6).fill(0, 192, 256)
  const whole = quantizeIntBlocks(values, { bits, rows, columns, blockSize: 64, symmetric })
  const kept = dequantizeIntBlocks(whole)
  for (let block = 0; block < 2 * rows; block++) {
    const start = Math.floor(block / 2) * columns + 64 * (block % 2)
    const part = values.subarray(start, start + (block % 2 === 0 ? 64 : 32))
    // The zero before it changes no range.
    const odd = { bits, rows: 1, columns: part.length + 1, blockSize: part.length + 1, symmetric }
    const alone = quantizeIntBlocks(Float32Array.of(0, ...part), odd)
    expect(whole.scales[block]).toBe(alone.scales[0])
    expect(codeAt(whole.zeros, block, bits)).toBe(codeAt(alone.zeros, 0, bits))
    expect(kept.subarray(start, start + part.length)).toEqual(dequantizeIntBlocks(alone).subarray(1))
  }
})

/** Random codes [in, out] and zero points [groups, out], and the matrix [out, in] that they stand for. */
function randomModule(bits: 4 | 8, groupOf: (input: number) => number) {
  const [inFeatures, outFeatures, groups] = [16, 8, 2]
  const random = createRandom(9)
  const codes = Array.from({ length: inFeatures * outFeatures }, () => random.nextInt(2 ** bits))
  const zeros = Array.from({ length: groups * outFeatures }, () => 1 + random.nextInt(2 ** bits - 1))
  const scales = Float32Array.from({ length: groups * outFeatures }, () => random.next())
  const expected = Float32Array.from({ length: inFeatures * outFeatures }, (_, i) => {
    const [output, input] = [Math.floor(i / inFeatures), i % inFeatures]
    const place = groupOf(input) * outFeatures + output
    return (codes[input * outFeatures + output]! - zeros[place]!) * scales[place]!
  })
  return { inFeatures, outFeatures, groupSize: 8, codes, zeros, scales, expected }
}

/** Words of 32 bits from codes [rows, columns], packed along the rows or along the columns. */
function packRows(codes: number[], columns: number, bits: number): Int32Array {
  const words = new Int32Array((codes.length * bits) / 32)
  codes.forEach((code, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns]
    const perWord = 32 / bits
    words[Math.floor(row / perWord) * columns + column]! |= code << (bits * (row % perWord))
  })
  return words
}
function packColumns(codes: number[], bits: number, placeOf = (column: number) => column): Int32Array {
  const words = new Int32Array((codes.length * bits) / 32)
  const perWord = 32 / bits
  codes.forEach((code, i) => {
    words[Math.floor(i / perWord)]! |= code << (bits * placeOf(i % perWord))
  })
  return words
}

describe('GPTQ', () => {
  it.each([
    [4, true],
    [4, false],
    [8, true],
  ] as const)('%d bits, zero points stored one too small: %s', (bits, zerosMinusOne) => {
    const { codes, zeros, expected, ...rest } = randomModule(bits, (input) => Math.floor(input / 8))
    const { blocks, order } = unpackGptq({
      ...rest,
      bits,
      qweight: packRows(codes, 8, bits),
      qzeros: packColumns(
        zeros.map((zero) => zero - (zerosMinusOne ? 1 : 0)),
        bits,
      ),
      zerosMinusOne,
    })
    expect(order).toBeUndefined()
    expect(largestDifference(dequantizeIntBlocks(blocks), expected)).toBeLessThan(1e-5)
  })

  it('act-order sorts inputs by group and says which stands where', () => {
    const groupIndex = Int32Array.from({ length: 16 }, (_, input) => input % 2)
    const { codes, zeros, expected, ...rest } = randomModule(4, (input) => input % 2)
    const qweight = packRows(codes, 8, 4)
    const qzeros = packColumns(
      zeros.map((zero) => zero - 1),
      4,
    )
    const options = { ...rest, bits: 4 as const, qweight, qzeros, zerosMinusOne: true }
    const { blocks, order } = unpackGptq({ ...options, groupIndex })
    const kept = dequantizeIntBlocks(blocks)
    const sorted = expected.map((_, i) => expected[Math.floor(i / 16) * 16 + order![i % 16]!]!)
    expect(largestDifference(kept, sorted)).toBeLessThan(1e-5)
    expect(() => unpackGptq({ ...options, groupIndex: new Int32Array(16).fill(1, 1) })).toThrow('g_idx')
  })
})

it('AWQ interleaves eight outputs in a word and stores zero points as they are', () => {
  const { codes, zeros, expected, ...rest } = randomModule(4, (input) => Math.floor(input / 8))
  const nibble = (output: number) => (output % 2) * 4 + Math.floor(output / 2)
  const blocks = unpackAwq({
    ...rest,
    qweight: packColumns(codes, 4, nibble),
    qzeros: packColumns(zeros, 4, nibble),
  })
  expect(codeAt(blocks.codes, 1, 4)).toBe(codes[8])
  expect(largestDifference(dequantizeIntBlocks(blocks), expected)).toBeLessThan(1e-5)
})
