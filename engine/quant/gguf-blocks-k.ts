import type { BlockFormat } from './block-format.ts'
import { writeFloat16 } from './gguf-blocks-simple.ts'

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
    const scales = new Float32Array(8)
    const minima = new Float32Array(8)
    for (let from = 0, to = 0; from < values.length; from += SIZE, to += Q4_BYTES) {
      for (let group = 0; group < 8; group++)
        fitScaleAndMinimum(values, from + 32 * group, group, scales, minima)
      const d = writeFloat16(target, to, maximum(scales) / 63)
      const e = writeFloat16(target, to + 2, maximum(minima) / 63)
      const sixBitScales = toSixBits(scales)
      const sixBitMinima = toSixBits(minima)
      packSixBits(sixBitScales, sixBitMinima, target, to + 4)
      for (let group = 0; group < 8; group++) {
        const scale = d * sixBitScales[group]!
        const minimum = e * sixBitMinima[group]!
        const shift = (group & 1) * 4
        const row = to + 16 + 32 * (group >> 1)
        for (let i = 0; i < 32; i++) {
          const q = scale === 0 ? 0 : clampedRound((values[from + 32 * group + i]! + minimum) / scale, 0, 15)
          target[row + i] = shift === 0 ? q : target[row + i]! | (q << 4)
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
    const scales = new Float32Array(16)
    for (let from = 0, to = 0; from < values.length; from += SIZE, to += Q6_BYTES) {
      for (let group = 0; group < 16; group++) scales[group] = fitSymmetricScale(values, from + 16 * group)
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

/** Below it a block counts as all zero. */
const SMALLEST = 1e-15

/** Where a Q6_K super-block keeps weight i: bytes of its low and high bits, and its row in its half. */
function placeOf(i: number): { low: number; high: number; row: number } {
  const half = i >> 7
  const row = (i >> 5) & 3
  const column = i & 31
  return { low: 64 * half + 32 * (row & 1) + column, high: 128 + 32 * half + column, row }
}

function packSixBitGroup(
  values: Float32Array,
  from: number,
  scale: number,
  group: number,
  target: Uint8Array,
  to: number,
): void {
  for (let j = 0; j < 16; j++) {
    const q = scale === 0 ? 32 : clampedRound(values[from + j]! / scale, -32, 31) + 32
    const { low, high, row } = placeOf(16 * group + j)
    target[to + low]! |= (q & 15) << (row >= 2 ? 4 : 0)
    target[to + high]! |= (q >>> 4) << (2 * row)
  }
}

const levels = new Uint8Array(32)
const weights = new Float32Array(32)

/**
 * Scale s ≥ 0 and minimum m ≥ 0 that make x ≈ s · q − m for 32 weights. Starts from the plain range, then tries slightly
 * other steps; for the levels q that a step gives, the best (s, m) under weights w = rms(x) + |x| solve the normal equations
 *   s · Σwq² − m · Σwq = Σwqx,   s · Σwq − m · Σw = Σwx.
 */
function fitScaleAndMinimum(
  values: Float32Array,
  from: number,
  group: number,
  scales: Float32Array,
  minima: Float32Array,
): void {
  let low = 0
  let high = values[from]!
  let squares = 0
  for (let i = 0; i < 32; i++) {
    const x = values[from + i]!
    if (x < low) low = x
    if (x > high) high = x
    squares += x * x
  }
  scales[group] = 0
  minima[group] = -low
  if (high <= low) return
  const rms = Math.sqrt(squares / 32)
  let sumW = 0
  let sumWX = 0
  for (let i = 0; i < 32; i++) {
    const x = values[from + i]!
    weights[i] = rms + Math.abs(x)
    sumW += weights[i]!
    sumWX += weights[i]! * x
  }
  let best = Number.POSITIVE_INFINITY
  for (let step = -1; step <= 20; step++) {
    const inverse = (step < 0 ? 15 : 14 + 0.1 * step) / (high - low)
    let sumWQ = 0
    let sumWQQ = 0
    let sumWQX = 0
    for (let i = 0; i < 32; i++) {
      const x = values[from + i]!
      const q = clampedRound(inverse * (x - low), 0, 15)
      levels[i] = q
      const wq = weights[i]! * q
      sumWQ += wq
      sumWQQ += wq * q
      sumWQX += wq * x
    }
    let scale = (high - low) / 15
    let minimum = -low
    if (step >= 0) {
      const determinant = sumW * sumWQQ - sumWQ * sumWQ
      if (determinant <= 0) continue
      scale = (sumW * sumWQX - sumWX * sumWQ) / determinant
      minimum = -(sumWQQ * sumWX - sumWQ * sumWQX) / determinant
      if (minimum < 0) {
        minimum = 0
        scale = sumWQX / sumWQQ
      }
    }
    let error = 0
    for (let i = 0; i < 32; i++) {
      const difference = scale * levels[i]! - minimum - values[from + i]!
      error += weights[i]! * difference * difference
    }
    if (error >= best) continue
    best = error
    scales[group] = scale
    minima[group] = minimum
  }
}

/**
 * Signed scale s that makes x ≈ s · q with q in −32…31 for 16 weights. For the levels of a trial step, the best s under
 * weights x² is Σx²·xq / Σx²·q², and the error falls with (Σx²·xq)² / Σx²·q², so the step with the largest is taken.
 */
function fitSymmetricScale(values: Float32Array, from: number): number {
  let extreme = 0
  for (let i = 0; i < 16; i++) {
    const x = values[from + i]!
    if (Math.abs(x) > Math.abs(extreme)) extreme = x
  }
  if (Math.abs(extreme) < SMALLEST) return 0
  let best = Number.NEGATIVE_INFINITY
  let scale = 0
  for (let step = -9; step <= 9; step++) {
    const inverse = -(32 + 0.1 * step) / extreme
    let sumLX = 0
    let sumLL = 0
    for (let i = 0; i < 16; i++) {
      const x = values[from + i]!
      const q = clampedRound(inverse * x, -32, 31)
      const weight = x * x
      sumLX += weight * x * q
      sumLL += weight * q * q
    }
    if (sumLL <= 0 || sumLX * sumLX <= best * sumLL) continue
    best = (sumLX * sumLX) / sumLL
    scale = sumLX / sumLL
  }
  return scale
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
