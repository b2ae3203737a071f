import { float16Bits, float16Value } from '../weights/dtypes.ts'
import type { BlockFormat } from './block-format.ts'

/** Weights in one block of each format here. */
const SIZE = 32
const HALF = SIZE / 2

/** x ≈ d · q with q in −127…127 and d = max|x| / 127. Bytes: d (f16), 32 signed bytes. */
export const q8_0: BlockFormat = {
  ggmlType: 8,
  blockSize: SIZE,
  blockBytes: 34,
  quantize(values, target) {
    for (let from = 0, to = 0; from < values.length; from += SIZE, to += 34) {
      let largest = 0
      for (let i = 0; i < SIZE; i++) {
        const size = Math.abs(values[from + i]!)
        if (size > largest) largest = size
      }
      const scale = Math.fround(largest / 127)
      const inverse = scale === 0 ? 0 : Math.fround(1 / scale)
      writeFloat16(target, to, scale)
      for (let i = 0; i < SIZE; i++) {
        const x = Math.fround(values[from + i]! * inverse)
        // Halves away from zero, as C's roundf.
        target[to + 2 + i] = x < 0 ? -Math.floor(0.5 - x) : Math.floor(x + 0.5)
      }
    }
  },
}

/**
 * x ≈ d · (q − 8) with q in 0…15. The weight of largest magnitude becomes exactly −8 · d, which is why d may be negative.
 * Bytes: d (f16), 16 bytes with weight i in the low and weight i + 16 in the high half.
 */
export const q4_0: BlockFormat = {
  ggmlType: 2,
  blockSize: SIZE,
  blockBytes: 18,
  quantize(values, target) {
    for (let from = 0, to = 0; from < values.length; from += SIZE, to += 18) {
      let low = values[from]!
      let high = low
      for (let i = 1; i < SIZE; i++) {
        const x = values[from + i]!
        if (x < low) low = x
        if (x > high) high = x
      }
      const extreme = extremeOf(values, from, low, high)
      const scale = Math.fround(extreme / -8)
      const inverse = scale === 0 ? 0 : Math.fround(1 / scale)
      writeFloat16(target, to, scale)
      packNibbles(values, from, target, to + 2, inverse, 8.5)
    }
  },
}

/** x ≈ d · q + m with q in 0…15, m = min x and d = (max x − min x) / 15. Bytes: d (f16), m (f16), then as Q4_0. */
export const q4_1: BlockFormat = {
  ggmlType: 3,
  blockSize: SIZE,
  blockBytes: 20,
  quantize(values, target) {
    for (let from = 0, to = 0; from < values.length; from += SIZE, to += 20) {
      let low = values[from]!
      let high = low
      for (let i = 1; i < SIZE; i++) {
        const x = values[from + i]!
        if (x < low) low = x
        if (x > high) high = x
      }
      const scale = Math.fround(Math.fround(high - low) / 15)
      const inverse = scale === 0 ? 0 : Math.fround(1 / scale)
      writeFloat16(target, to, scale)
      writeFloat16(target, to + 2, low)
      for (let i = 0; i < HALF; i++) {
        const first = Math.fround(Math.fround(values[from + i]! - low) * inverse) + 0.5
        const second = Math.fround(Math.fround(values[from + i + HALF]! - low) * inverse) + 0.5
        target[to + 4 + i] = nibble(first) | (nibble(second) << 4)
      }
    }
  },
}

/** The value of largest magnitude with its sign; of two that differ in sign alone, the first, as ggml takes it. */
function extremeOf(values: Float32Array, from: number, low: number, high: number): number {
  if (-low > high) return low
  if (-low < high) return high
  for (let i = 0; i < SIZE; i++) {
    const x = values[from + i]!
    if (x === low || x === high) return x
  }
  return high
}

function packNibbles(
  values: Float32Array,
  from: number,
  target: Uint8Array,
  to: number,
  inverse: number,
  offset: number,
): void {
  for (let i = 0; i < HALF; i++) {
    const first = Math.fround(Math.fround(values[from + i]! * inverse) + offset)
    const second = Math.fround(Math.fround(values[from + i + HALF]! * inverse) + offset)
    target[to + i] = nibble(first) | (nibble(second) << 4)
  }
}

/** A non-negative number without its fraction, at most 15. */
function nibble(x: number): number {
  return x > 15 ? 15 : x | 0
}

/** Writes a number as float16 and returns what was written. */
export function writeFloat16(target: Uint8Array, at: number, value: number): number {
  const bits = float16Bits(value)
  target[at] = bits & 0xff
  target[at + 1] = bits >>> 8
  return float16Value(bits)
}
