import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { packGptq } from '../../../engine/packed/gptq-packing.ts'
import { unpackGptq } from '../../../engine/packed/gptq-reader.ts'
import { dequantizeIntBlocks, type IntBlocks } from '../../../engine/packed/int-blocks.ts'
import { packNBits } from '../../../engine/packed/nbits-packing.ts'
import { orderedValues } from '../../../engine/packed/ordered-values.ts'
import { awq } from '../../../engine/quant/awq.ts'
import { clipRanges } from '../../../engine/quant/clip-ranges.ts'
import { type Factors, factorHessian } from '../../../engine/quant/factor.ts'
import { FeedbackRounding } from '../../../engine/quant/feedback-rounding.ts'
import { type GptqOptions, gptq, shrinksOf } from '../../../engine/quant/gptq.ts'
import { MatrixProduct } from '../../../engine/quant/matrix-product.ts'
import { roundToNearest } from '../../../engine/quant/nearest.ts'
import { quantizeIntBlocks } from '../../../engine/quant/round-int-blocks.ts'
import { float16Bits, float16Value } from '../../../engine/weights/dtypes.ts'
import { gaussian } from '../weights/tiny-model.ts'

const COLUMNS = 160
const ROWS = 24
const SAMPLES = 400
const IN_TURN = Int32Array.from({ length: COLUMNS }, (_, input) => input)
const OPTIONS: GptqOptions = { bits: 4, groupSize: 64, symmetric: true, actOrder: false, damping: 0.01 }

let product: MatrixProduct
beforeAll(async () => {
  product = await MatrixProduct.create(1)
})
afterAll(() => product.release())

/** Inputs that hang together and differ in size, as activations do. */
function inputs(): Float32Array {
  const base = gaussian(SAMPLES * COLUMNS, 5)
  return base.map((value, i) => {
    const column = i % COLUMNS
    const before = column === 0 ? 0 : base[i - 1]!
    return (value + 0.9 * before) * (column % 17 === 0 ? 6 : 1)
  })
}

const weights = () => gaussian(ROWS * COLUMNS, 9)
const hessianOf = (x: Float32Array) => product.run(x, x, SAMPLES)

const rowOf = (values: Float32Array, row: number) => values.subarray(row * COLUMNS, (row + 1) * COLUMNS)

/** tr((W − Ŵ)·H·(W − Ŵ)ᵀ): the squared error of the outputs, of some rows. */
function outputError(w: Float32Array, approximate: Float32Array, hessian: Float32Array): number {
  let sum = 0
  for (let row = 0; row < w.length / COLUMNS; row++) {
    const other = rowOf(approximate, row)
    const e = rowOf(w, row).map((value, column) => value - other[column]!)
    for (let i = 0; i < COLUMNS; i++) {
      for (let j = 0; j < COLUMNS; j++) sum += e[i]! * hessian[i * COLUMNS + j]! * e[j]!
    }
  }
  return sum
}

async function quantized(options: Partial<GptqOptions> = {}) {
  const hessian = await hessianOf(inputs())
  const matrices = [{ path: 'm', rows: ROWS, values: weights() }]
  const result = await gptq(matrices, COLUMNS, hessian, { ...OPTIONS, ...options }, product)
  return result.get('m')!
}

describe('factorHessian', () => {
  it('gives factors whose product is the Hessian again', async () => {
    const hessian = await hessianOf(inputs())
    const { feedback, diagonal } = await factorHessian(hessian.slice(), COLUMNS, product)
    const at = (i: number, k: number) => (i === k ? 1 : feedback[k * COLUMNS + i]!)
    const largest = hessian.reduce((a, b) => Math.max(a, Math.abs(b)), 0)
    for (let i = 0; i < COLUMNS; i++) {
      for (let j = 0; j <= i; j++) {
        let sum = 0
        for (let k = i; k < COLUMNS; k++) sum += at(i, k) * diagonal[k]! * at(j, k)
        expect(Math.abs(sum - hessian[i * COLUMNS + j]!)).toBeLessThan(1e-5 * largest)
      }
    }
  })

  it('refuses a matrix that is not positive definite', async () => {
    await expect(factorHessian(new Float32Array(4), 2, product)).rejects.toThrow(/raise the damping/)
  })
})

describe('gptq', () => {
  it.each([
    ['symmetric', {}],
    ['asymmetric', { symmetric: false }],
    ['in groups of 32', { groupSize: 32 }],
    ['with act-order', { actOrder: true }],
    ['at 8 bits', { bits: 8 as const }],
  ])('leaves less than two thirds of the output error of rounding to nearest, %s', async (_, options) => {
    const { bits, groupSize: blockSize, symmetric } = { ...OPTIONS, ...options }
    const hessian = await hessianOf(inputs())
    const plain = quantizeIntBlocks(weights(), { bits, rows: ROWS, columns: COLUMNS, blockSize, symmetric })
    const nearest = outputError(weights(), dequantizeIntBlocks(plain), hessian)
    const fedBack = outputError(weights(), orderedValues(await quantized(options)), hessian)
    expect(fedBack).toBeLessThan(nearest * (2 / 3))
  })

  it('gives matrices of one input the same codes together as alone', async () => {
    const matrices = [
      { path: 'other', rows: ROWS, values: gaussian(ROWS * COLUMNS, 11) },
      { path: 'm', rows: ROWS, values: weights() },
    ]
    const together = await gptq(matrices, COLUMNS, await hessianOf(inputs()), OPTIONS, product)
    expect(together.get('m')!.blocks.codes).toEqual((await quantized()).blocks.codes)
  })

  it('leaves less of the output error than rounding the columns in turn, its groups where they were', async () => {
    const hessian = await hessianOf(inputs())
    const damped = hessian.slice()
    const mean = hessian.reduce((sum, value, i) => sum + (i % (COLUMNS + 1) === 0 ? value : 0), 0) / COLUMNS
    for (let i = 0; i < COLUMNS; i++) damped[i * COLUMNS + i]! += OPTIONS.damping * mean
    const factors = await factorHessian(damped, COLUMNS, product)
    const rounding = new FeedbackRounding(
      { ...OPTIONS, columns: COLUMNS, shrinks: shrinksOf(OPTIONS) },
      factors,
    )
    const inTurn = dequantizeIntBlocks(rounding.quantize(weights(), ROWS, IN_TURN))
    const { blocks, order } = await quantized()
    expect(order).toBeUndefined()
    const error = outputError(weights(), dequantizeIntBlocks(blocks), hessian)
    expect(error).toBeLessThan(0.95 * outputError(weights(), inTurn, hessian))
  })

  it('drops the weights of inputs that are always zero', async () => {
    const x = inputs().map((value, i) => (i % COLUMNS === 3 ? 0 : value))
    const matrices = [{ path: 'm', rows: ROWS, values: weights() }]
    const result = await gptq(matrices, COLUMNS, await hessianOf(x), OPTIONS, product)
    const values = orderedValues(result.get('m')!)
    for (let row = 0; row < ROWS; row++) expect(values[row * COLUMNS + 3]).toBe(0)
  })
})

/** The column by column definition, in double precision, with the scales given. */
function definition(blocks: IntBlocks, { feedback }: Factors): number[] {
  const { scales, blockSize } = blocks
  const groups = Math.ceil(COLUMNS / blockSize)
  const w = weights()
  return Array.from({ length: ROWS }, (_, row) => {
    const errors: number[] = []
    for (let k = 0; k < COLUMNS; k++) {
      const fed = errors.reduce((sum, error, i) => sum + error * feedback[k * COLUMNS + i]!, 0)
      const scale = scales[row * groups + Math.floor(k / blockSize)]!
      const code = Math.max(-8, Math.min(7, Math.round((w[row * COLUMNS + k]! + fed) / scale)))
      errors.push(w[row * COLUMNS + k]! - code * scale)
    }
    return errors
  }).flat()
}

describe('FeedbackRounding', () => {
  it('rounds as the definition does, but for ties', async () => {
    const factors = await factorHessian(await hessianOf(inputs()), COLUMNS, product)
    const options = { columns: COLUMNS, groupSize: 32, bits: 4, symmetric: true, shrinks: [1, 0.9] } as const
    const blocks = new FeedbackRounding(options, factors).quantize(weights(), ROWS, IN_TURN)
    const errors = definition(blocks, factors)
    const values = dequantizeIntBlocks(blocks)
    const same = weights().filter((w, i) => Math.abs(w - values[i]! - errors[i]!) < 1e-4).length
    expect(same / errors.length).toBeGreaterThan(0.98)
  })

  it('gives scales that float16 holds, also very small ones', async () => {
    const factors = { feedback: new Float32Array(COLUMNS ** 2), diagonal: new Float32Array(COLUMNS).fill(1) }
    const options = { columns: COLUMNS, groupSize: 32, bits: 4, symmetric: true, shrinks: [1] } as const
    for (const size of [1, 1e-4, 1e-6]) {
      const small = weights().map((w) => w * size)
      const { scales } = new FeedbackRounding(options, factors).quantize(small, ROWS, IN_TURN)
      expect(scales).toEqual(scales.map((scale) => float16Value(float16Bits(scale))))
      const exact = quantizeIntBlocks(small, { ...options, rows: ROWS, blockSize: 32 }).scales
      expect(scales).toEqual(exact.map((scale) => float16Value(float16Bits(scale))))
    }
  })
})

describe('roundToNearest', () => {
  const options = { bits: 4, rows: ROWS, columns: COLUMNS, blockSize: 64 } as const
  const error = (blocks: IntBlocks) => {
    const kept = dequantizeIntBlocks(blocks)
    return weights().reduce((sum, value, i) => sum + (value - kept[i]!) ** 2, 0)
  }

  it('leaves symmetric blocks less error than the scale of their range, in float16', () => {
    const found = roundToNearest(weights(), { ...options, symmetric: true })
    const plain = quantizeIntBlocks(weights(), { ...options, symmetric: true })
    expect(error(found)).toBeLessThan(0.9 * error(plain))
    expect(found.scales).toEqual(found.scales.map((scale) => float16Value(float16Bits(scale))))
  })

  it('gives asymmetric blocks the scale of their range in float16, and codes nearest by that', () => {
    const asymmetric = { ...options, symmetric: false }
    const found = roundToNearest(weights(), asymmetric)
    const exact = quantizeIntBlocks(weights(), asymmetric)
    const stored = { ...exact, scales: exact.scales.map((scale) => float16Value(float16Bits(scale))) }
    expect(found.scales).toEqual(stored.scales)
    expect(error(found)).toBeLessThan(error(stored))
  })
})

describe('awq', () => {
  const error = async (scalable: boolean) => {
    const hessian = await hessianOf(inputs())
    const matrices = [{ path: 'm', rows: ROWS, values: weights() }]
    const { blocks, scales } = await awq(matrices, COLUMNS, hessian, OPTIONS, product, scalable)
    const values = dequantizeIntBlocks(blocks.get('m')!).map((value, i) => {
      return scales ? value / scales[i % COLUMNS]! : value
    })
    return { error: outputError(weights(), values, hessian), scales }
  }

  it('leaves less of the output error the more it may do: clip, then scale', async () => {
    const hessian = await hessianOf(inputs())
    const plain = { bits: 4, rows: ROWS, columns: COLUMNS, blockSize: 64, symmetric: true } as const
    const nearest = outputError(weights(), dequantizeIntBlocks(quantizeIntBlocks(weights(), plain)), hessian)
    const [clipped, scaled] = [await error(false), await error(true)]
    expect(clipped.scales).toBeUndefined()
    expect(clipped.error).toBeLessThan(nearest)
    expect(scaled.error).toBeLessThan(clipped.error)
  })

  it('gives inputs with large activations a larger scale', async () => {
    const { scales } = await error(true)
    expect(scales![17]).toBeGreaterThan(scales![18]!)
  })
})

describe('packGptq', () => {
  it.each([
    [1, true],
    [2, false],
  ] as const)('is read back by the reader, version %i, act-order %s', async (version, actOrder) => {
    const matrix = await quantized({ actOrder })
    const { groupIndex, ...packed } = packGptq(matrix, version)
    const back = unpackGptq({
      bits: 4,
      inFeatures: COLUMNS,
      outFeatures: ROWS,
      groupSize: OPTIONS.groupSize,
      groupIndex,
      zerosMinusOne: version === 1,
      ...packed,
    })
    expect(orderedValues(back)).toEqual(orderedValues(matrix))
  })
})

describe('packNBits', () => {
  it('begins each row of zero points at a byte and fills the last block with them', () => {
    const options = { bits: 4, rows: 2, columns: 5, blockSize: 2, symmetric: false } as const
    const packed = packNBits(quantizeIntBlocks(Float32Array.of(1, 2, 3, 4, 5, -1, -2, -3, -4, -5), options))
    expect(packed.codes.length).toBe(2 * 3)
    expect(packed.zeros.length).toBe(2 * 2)
    expect(packed.codes[5]! >> 4).toBe(packed.zeros[3]! & 15)
  })
})

describe('clipRanges', () => {
  const CLIPS = Array.from({ length: 11 }, (_, i) => 1 - i / 20)
  const options = { bits: 4, rows: ROWS, columns: COLUMNS, symmetric: true } as const
  const clipped = async (blockSize: number, hessian: Float32Array) => {
    const blocks = quantizeIntBlocks(weights(), { ...options, blockSize })
    return clipRanges({ values: weights(), blocks, scales: undefined }, hessian, options, product)
  }
  /** Everything rounded with one range for all groups. */
  const roundedTo = (clip: number, groupSize: number) => {
    const grid = { ...options, groupSize, shrinks: [clip] }
    const equal = { feedback: undefined, diagonal: new Float32Array(COLUMNS).fill(1) }
    return dequantizeIntBlocks(new FeedbackRounding(grid, equal).quantize(weights(), ROWS, IN_TURN))
  }
  const exact = weights()
  const rowError = (row: Float32Array, at: number, hessian: Float32Array) =>
    outputError(rowOf(exact, at), row, hessian)

  it('takes the range that leaves the least error of the outputs, row by row', async () => {
    const hessian = await hessianOf(inputs())
    const found = dequantizeIntBlocks(await clipped(COLUMNS, hessian))
    const trials = CLIPS.map((clip) => roundedTo(clip, COLUMNS))
    for (let row = 0; row < ROWS; row++) {
      const least = Math.min(...trials.map((trial) => rowError(rowOf(trial, row), row, hessian)))
      expect(rowError(rowOf(found, row), row, hessian) / least).toBeCloseTo(1, 4)
    }
  })

  it('leaves the last group none that is better beside the other groups', async () => {
    const hessian = await hessianOf(inputs())
    const found = dequantizeIntBlocks(await clipped(64, hessian))
    const plain = dequantizeIntBlocks(quantizeIntBlocks(weights(), { ...options, blockSize: 64 }))
    expect(outputError(weights(), found, hessian)).toBeLessThan(outputError(weights(), plain, hessian))
    for (const clip of CLIPS) {
      const trial = roundedTo(clip, 64)
      for (let row = 0; row < ROWS; row++) {
        const changed = rowOf(found, row).slice()
        changed.set(rowOf(trial, row).subarray(128), 128)
        const least = rowError(rowOf(found, row), row, hessian)
        expect(least).toBeLessThan(1.0001 * rowError(changed, row, hessian))
      }
    }
  })
})
