import { describe, expect, it } from 'vitest'
import { LoraKernel } from '../../../engine/adapter/lora-kernel.ts'
import { bfloat16ToFloat32, float32ToBfloat16 } from '../../../engine/weights/dtypes.ts'
import { gaussian } from '../weights/tiny-model.ts'

/** W + scale · B·A as the kernel's order of additions has it: in float32, from r = 0 on, scale going into B. */
function expected(
  rows: Uint16Array,
  a: Float32Array,
  b: Float32Array,
  rank: number,
  columns: number,
  scale: number,
) {
  const weights = bfloat16ToFloat32(rows)
  const scaled = b.map((value) => scale * value)
  return float32ToBfloat16(
    weights.map((value, index) => {
      const [row, column] = [Math.floor(index / columns), index % columns]
      let sum = value
      for (let r = 0; r < rank; r++) {
        sum = Math.fround(sum + Math.fround(scaled[row * rank + r]! * a[r * columns + column]!))
      }
      return sum
    }),
  )
}

// One for all tests, since it is made to be loaded again.
const kernel = new LoraKernel()

function kernelOf(a: Float32Array, rank: number, columns: number): LoraKernel {
  kernel.load(a, rank, columns)
  return kernel
}

describe('LoraKernel', () => {
  it.each([
    [1, 1, 8],
    [4, 3, 8],
    [6, 2, 16],
    [9, 16, 40],
    [32, 64, 1024],
  ])('gives %i rows of rank %i and %i columns bit for bit as float32 does', (count, rank, columns) => {
    const rows = float32ToBfloat16(gaussian(count * columns, 1))
    const [a, b] = [gaussian(rank * columns, 2), gaussian(count * rank, 3)]
    const wanted = expected(rows, a, b, rank, columns, 0.37)
    expect(kernelOf(a, rank, columns).add(rows, b, 0.37)).toBeUndefined()
    expect(rows).toEqual(wanted)
  })

  it('rounds halves to even', () => {
    // 1 + 2^-8 lies between 1 and 1 + 2^-7; 1 + 3 · 2^-8 between 1 + 2^-7 and 1 + 2^-6.
    const rows = float32ToBfloat16(new Float32Array(8).fill(1))
    const a = Float32Array.of(2 ** -8, 3 * 2 ** -8, -(2 ** -9), 0, 0, 0, 0, 0)
    kernelOf(a, 1, 8).add(rows, Float32Array.of(1), 1)
    expect([...bfloat16ToFloat32(rows).subarray(0, 3)]).toEqual([1, 1 + 2 ** -6, 1])
  })

  it.each([
    ['a product that overflows', 3e38, 10],
    ['NaN', Number.NaN, 1],
    ['infinity', Number.POSITIVE_INFINITY, 1],
    ['a sum that only rounding makes infinite', (2 - 2 ** -9) * 2 ** 127, 1],
  ])('finds %s and leaves those rows as they were', (_, value, factor) => {
    const rows = float32ToBfloat16(new Float32Array(8 * 8).fill(1))
    const before = rows.slice()
    const b = new Float32Array(8)
    b[6] = factor
    const a = new Float32Array(8)
    a[5] = value
    if (Number.isNaN(value) || value === Number.POSITIVE_INFINITY) b.fill(0, 0, 4)
    const where = kernelOf(a, 1, 8).add(rows, b, 1)
    expect(where).toBe(Number.isFinite(value) ? 4 : 0) // 0 · infinity is NaN in every row
    expect(rows.subarray(where! * 8)).toEqual(before.subarray(where! * 8))
  })
})
