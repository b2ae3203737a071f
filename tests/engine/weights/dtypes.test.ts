import { Float16Array } from '@petamoriken/float16'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  decodeFloat32,
  encodeFloat32,
  float16Value,
  float32ToBfloat16,
  float32ToFloat16,
  LARGEST,
  type WeightDType,
} from '../../../engine/weights/dtypes.ts'

const everyHalf = Uint16Array.from({ length: 65_536 }, (_, bits) => bits)
const widened = (halves: Uint16Array, dtype: WeightDType) =>
  decodeFloat32(new Uint8Array(halves.buffer), dtype)
const fromBits = (...bits: number[]) => new Float32Array(Uint32Array.from(bits).buffer)

describe('float16', () => {
  it('widens every one of the 65,536 numbers as the reference library does', () => {
    const expected = Float32Array.from(new Float16Array(everyHalf.slice().buffer))
    expect(widened(everyHalf, 'float16')).toEqual(expected)
    expect(Float32Array.from(everyHalf, float16Value)).toEqual(expected)
  })

  it('comes back unchanged from float32, infinities and NaN payloads included', () => {
    const back = float32ToFloat16(widened(everyHalf, 'float16'))
    const quiet = everyHalf.map((bits) => ((bits & 0x7fff) > 0x7c00 ? bits | 0x200 : bits))
    expect(back).toEqual(quiet)
  })

  it('rounds any float32 as the reference library does', () => {
    fc.assert(
      fc.property(fc.uint32Array({ minLength: 64, maxLength: 64 }), (bits) => {
        const values = fromBits(...bits)
        const finite = values.map((value) => (Number.isNaN(value) ? 0 : value))
        expect(float32ToFloat16(finite)).toEqual(new Uint16Array(new Float16Array(finite).buffer))
      }),
      { seed: 1, numRuns: 200 },
    )
  })

  it('rounds to nearest even at the borders: subnormals, carries and overflow', () => {
    const values = Float32Array.of(
      2 ** -25,
      2 ** -25 * 1.001,
      2 ** -24 * 1.5,
      2047 / 2048,
      65_519.99,
      65_520,
      -2,
    )
    const expected = Uint16Array.of(0, 1, 2, 0x3bff, 0x7bff, 0x7c00, 0xc000)
    expect(float32ToFloat16(values)).toEqual(expected)
  })
})

describe('bfloat16', () => {
  it('comes back unchanged from float32', () => {
    const back = float32ToBfloat16(widened(everyHalf, 'bfloat16'))
    const quiet = everyHalf.map((bits) => ((bits & 0x7fff) > 0x7f80 ? bits | 0x40 : bits))
    expect(back).toEqual(quiet)
  })

  it('rounds to nearest, ties to even', () => {
    const bits = fromBits(0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0x7f7fffff, 0x00008000)
    expect(float32ToBfloat16(bits)).toEqual(Uint16Array.of(0x3f80, 0x3f82, 0x3f81, 0x3f80, 0x7f80, 0))
  })

  it('keeps a NaN whose payload sits in the dropped bits', () => {
    expect(widened(float32ToBfloat16(fromBits(0x7f800001, 0xffffffff)), 'bfloat16')).toEqual(
      Float32Array.of(Number.NaN, Number.NaN),
    )
  })
})

describe.each(['float32', 'float16', 'bfloat16'] as WeightDType[])('bytes of %s', (dtype) => {
  it('hold the largest number exactly', () => {
    const largest = Float32Array.of(LARGEST[dtype], -LARGEST[dtype])
    expect(decodeFloat32(encodeFloat32(largest, dtype), dtype)).toEqual(largest)
  })

  it('decode at an odd offset', () => {
    const values = Float32Array.of(1, -2, 0.5)
    const encoded = encodeFloat32(values, dtype)
    const shifted = new Uint8Array(encoded.length + 1)
    shifted.set(encoded, 1)
    expect(decodeFloat32(shifted.subarray(1), dtype)).toEqual(values)
  })
})
