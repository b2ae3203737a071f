import { float16Bits, float16Value } from '../weights/dtypes.ts'
import type { BlockFormat } from './block-format.ts'
import { packBlocks } from './gguf-kernel.ts'

/** Weights in one block of each format here. */
const SIZE = 32
const HALF = SIZE / 2

/** x ≈ d · q with q in −127…127 and d = max|x| / 127. Bytes: d (f16), 32 signed bytes. */
export const q8_0: BlockFormat = {
  ggmlType: 8,
  blockSize: SIZE,
  blockBytes: 34,
  quantize: (values, target) => packBlocks('q8_0', 34, values, target),
}

/**
 * x ≈ d · (q − 8) with q in 0…15. The weight of largest magnitude becomes exactly −8 · d, which is why d may be negative.
 * Bytes: d (f16), 16 bytes with weight i in the low and weight i + 16 in the high half.
 */
export const q4_0: BlockFormat = {
  ggmlType: 2,
  blockSize: SIZE,
  blockBytes: 18,
  quantize: (values, target) => packBlocks('q4_0', 18, values, target),
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
