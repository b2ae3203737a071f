import type { BlockFormat } from './block-format.ts'
import { writeFloat16 } from './gguf-blocks-simple.ts'
import { fitSymmetricScales, fitWithMinima, SMALLEST } from './gguf-kernel-k.ts'

/** Weights in one super-block. */
const SIZE = 256
const Q4_BYTES = 144
const Q6_BYTES = 210

/**
 * Eight groups of 32: x ≈ d · s · q − e · m with q in 0…15 and 6-bit s, m for each group.
 * Bytes: d, e (f16); 12 bytes with the eight s and m; 128 bytes, where 32 bytes hold one group in their low and the next
 * group in their high halves.
 */
export const q4k: BlockFormat = {
  ggmlType: 12,
  blockSize: SIZE,
  blockBytes: Q4_BYTES,
  quantize(values, target) {
    const fitted = fitWithMinima(values)
    for (let from = 0, to = 0; from < values.length; from += SIZE, to += Q4_BYTES) {
      const scales = fitted.scales.subarray(from / 32, from / 32 + 8)
      const minima = fitted.minima.subarray(from / 32, from / 32 + 8)
      const d = writeFloat16(target, to, maximum(scales) / 63)
      const e = writeFloat16(target, to + 2, maximum(minima) / 63)
      const sixBitScales = toSixBits(scales)
      const sixBitMinima = toSixBits(minima)
      packSixBits(sixBitScales, sixBitMinima, target, to + 4)
      for (let group = 0; group < 8; group++) {
        const scale = d * sixBitScales[group]!
        const minimum = e * sixBitMinima[group]!
        const inverse = scale === 0 ? 0 : 1 / scale
        const first = from + 32 * group
        const row = to + 16 + 32 * (group >> 1)
        for (let i = 0; i < 32; i++) {
          const q = clampedRound((values[first + i]! + minimum) * inverse, 0, 15)
          target[row + i] = group % 2 === 0 ? q : target[row + i]! | (q << 4)
        }
      }
    }
  },
}

/**
 * Sixteen groups of 16: x ≈ d · s · (q − 32) with q in 0…63 and a signed byte s for each group.
 * Bytes: 128 with the low four bits, 64 with the high two, 16 scales, d (f16). Each half of 128 weights stores weight
 * i of its four rows of 32 in low[i] and low[i + 32] (rows 0, 1 low halves; 2, 3 high halves) and high[i] (2 bits a row).
 */
export const q6k: BlockFormat = {
  ggmlType: 14,
  blockSize: SIZE,
  blockBytes: Q6_BYTES,
  quantize(values, target) {
    const fitted = fitSymmetricScales(values)
    for (let from = 0, to = 0; from < values.length; from += SIZE, to += Q6_BYTES) {
      const scales = fitted.subarray(from / 16, from / 16 + 16)
      let extreme = 0
      for (const scale of scales) if (Math.abs(scale) > Math.abs(extreme)) extreme = scale
      target.fill(0, to, to + Q6_BYTES)
      if (Math.abs(extreme) < SMALLEST) continue
      const d = writeFloat16(target, to + 208, extreme / -128)
      for (let group = 0; group < 16; group++) {
        const s = clampedRound((scales[group]! * -128) / extreme, -128, 127)
        target[to + 192 + group] = s
        packSixBitGroup(values, from + 16 * group, d * s, group, target, to)
      }
    }
  },
}

/** Weight 16 · group + j lies in row (group / 2) mod 4 of its half of the super-block. */
function packSixBitGroup(
  values: Float32Array,
  from: number,
  scale: number,
  group: number,
  target: Uint8Array,
  to: number,
): void {
  const inverse = scale === 0 ? 0 : 1 / scale
  const [half, row, column] = [group >> 3, (group >> 1) & 3, 16 * (group & 1)]
  const low = to + 64 * half + 32 * (row & 1) + column
  const high = to + 128 + 32 * half + column
  const [lowShift, highShift] = [row >= 2 ? 4 : 0, 2 * row]
  for (let j = 0; j < 16; j++) {
    const q = clampedRound(values[from + j]! * inverse, -32, 31) + 32
    target[low + j]! |= (q & 15) << lowShift
    target[high + j]! |= (q >>> 4) << highShift
  }
}

function clampedRound(x: number, low: number, high: number): number {
  const rounded = Math.floor(x + 0.5)
  return Math.min(high, Math.max(low, rounded))
}

function maximum(values: Float32Array): number {
  let largest = 0
  for (const value of values) if (value > largest) largest = value
  return largest
}

/** 63 · value / max value, rounded. */
function toSixBits(values: Float32Array): Uint8Array {
  const largest = maximum(values)
  return Uint8Array.from(values, (value) =>
    largest > 0 ? Math.min(63, Math.round((63 * value) / largest)) : 0,
  )
}

/**
 * Packs eight 6-bit scales and minima into 12 bytes: bytes 0–3 and 4–7 hold those of groups 0–3 with two bits of groups
 * 4–7 on top; bytes 8–11 hold the low halves of groups 4–7.
 */
function packSixBits(scales: Uint8Array, minima: Uint8Array, target: Uint8Array, at: number): void {
  for (let j = 0; j < 4; j++) {
    target[at + j] = scales[j]! | ((scales[j + 4]! >>> 4) << 6)
    target[at + 4 + j] = minima[j]! | ((minima[j + 4]! >>> 4) << 6)
    target[at + 8 + j] = (scales[j + 4]! & 15) | ((minima[j + 4]! & 15) << 4)
  }
}
