import { describe, expect, it } from 'vitest'
import { LoraKernel } from '../../../engine/adapter/lora-kernel.ts'
import { sharedMemoryOf, sharedPages } from '../../../engine/wasm/instance.ts'
import { decodeFloat32, float32ToBfloat16 } from '../../../engine/weights/dtypes.ts'
import { gaussian } from '../weights/tiny-model.ts'

const widened = (rows: Uint16Array) => decodeFloat32(new Uint8Array(rows.buffer), 'bfloat16')

/** W + scale · B·A as the kernel's order of additions has it: in float32, from r = 0 on, scale going into B. */
function expected(
  rows: Uint16Array,
  a: Float32Array,
  b: Float32Array,
  rank: number,
  columns: number,
  scale: number,
) {
  const weights = widened(rows)
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
    expect(kernelOf(a, rank, columns).add(rows, b, 0.37)).toBe(true)
    expect(rows).toEqual(wanted)
  })

  it('changes rows where they lie in shared memory, and nothing beside them', () => {
    const [count, rank, columns] = [7, 5, 24]
    const rows = float32ToBfloat16(gaussian(count * columns, 1))
    const [a, b] = [gaussian(rank * columns, 2), gaussian(count * rank, 3)]
    const wanted = expected(rows, a, b, rank, columns, 0.37)
    const all = new Uint16Array(sharedPages(60_000)).fill(7)
    const there = all.subarray(101, 101 + rows.length)
    there.set(rows)
    const inPlace = new LoraKernel(sharedMemoryOf(all.buffer))
    inPlace.load(a, rank, columns)
    expect(inPlace.add(there, b, 0.37)).toBe(true)
    expect([...there]).toEqual([...wanted])
    expect(new Set([...all.subarray(0, 101), ...all.subarray(101 + rows.length)])).toEqual(new Set([7]))
  })

  it('rounds halves to even', () => {
    // 1 + 2^-8 lies between 1 and 1 + 2^-7; 1 + 3 · 2^-8 between 1 + 2^-7 and 1 + 2^-6.
    const rows = float32ToBfloat16(new Float32Array(8).fill(1))
    const a = Float32Array.of(2 ** -8, 3 * 2 ** -8, -(2 ** -9), 0, 0, 0, 0, 0)
    kernelOf(a, 1, 8).add(rows, Float32Array.of(1), 1)
    expect([...widened(rows).subarray(0, 3)]).toEqual([1, 1 + 2 ** -6, 1])
  })

  it.each([
    ['a product that overflows', 3e38, 10],
    ['NaN', Number.NaN, 1],
    ['infinity', Number.POSITIVE_INFINITY, 1],
    ['a sum that only rounding makes infinite', (2 - 2 ** -9) * 2 ** 127, 1],
  ])('finds %s', (_, value, factor) => {
    const b = new Float32Array(8)
    b[6] = factor
    const a = new Float32Array(8)
    a[5] = value
    expect(kernelOf(a, 1, 8).add(float32ToBfloat16(new Float32Array(8 * 8).fill(1)), b, 1)).toBe(false)
  })

  it.each([0x7fffffff, 0xffffffff, 0x7f800001])('finds NaN with the bits %i in A, B and weights', (bits) => {
    const ones = new Float32Array(8).fill(1)
    const weights = () => float32ToBfloat16(ones)
    const nan = new Float32Array(Uint32Array.of(bits).buffer)
    const a = ones.slice()
    a.set(nan, 3)
    expect(kernelOf(a, 1, 8).add(weights(), ones, 1)).toBe(false)
    expect(kernelOf(ones, 1, 8).add(weights(), nan, 1)).toBe(false)
    const rows = weights()
    rows[2] = (bits >>> 16) | 1
    expect(kernelOf(ones, 1, 8).add(rows, ones, 1)).toBe(false)
  })
})
