import { float16Value } from '../weights/dtypes.ts'
import type { GgufType } from './types.ts'

type Quantized = Exclude<GgufType['name'], 'F32' | 'F16' | 'BF16'>

/** Reads one block at byte `at` into `out` from element `to` on. */
type ReadBlock = (bytes: Uint8Array, at: number, out: Float32Array, to: number) => void

const fround = Math.fround

/** The blocks of ggml-common.h, read as ggml-quants.c does (dequantize_row_*), each product rounded to float32. */
const READERS: Record<Quantized, { size: number; bytes: number; read: ReadBlock }> = {
  // half d; 16 bytes of nibbles: x = d·(q - 8)
  Q4_0: {
    size: 32,
    bytes: 18,
    read(bytes, at, out, to) {
      const d = half(bytes, at)
      for (let i = 0; i < 16; i++) {
        const q = bytes[at + 2 + i]!
        out[to + i] = d * ((q & 15) - 8)
        out[to + 16 + i] = d * ((q >> 4) - 8)
      }
    },
  },
  // half d, half m; 16 bytes of nibbles: x = d·q + m
  Q4_1: {
    size: 32,
    bytes: 20,
    read(bytes, at, out, to) {
      const [d, m] = [half(bytes, at), half(bytes, at + 2)]
      for (let i = 0; i < 16; i++) {
        const q = bytes[at + 4 + i]!
        out[to + i] = fround(d * (q & 15)) + m
        out[to + 16 + i] = fround(d * (q >> 4)) + m
      }
    },
  },
  // half d; 32 signed bytes: x = d·q
  Q8_0: {
    size: 32,
    bytes: 34,
    read(bytes, at, out, to) {
      const d = half(bytes, at)
      for (let i = 0; i < 32; i++) out[to + i] = d * signed(bytes[at + 2 + i]!)
    },
  },
  // half d, half dmin; 8 scales and 8 minima of 6 bits in 12 bytes; 128 bytes of nibbles: x = d·scale·q - dmin·min
  Q4_K: {
    size: 256,
    bytes: 144,
    read(bytes, at, out, to) {
      for (let part = 0; part < 8; part++) {
        const [factor, offset] = scalesOfQ4K(bytes, at, part)
        const shift = (part & 1) * 4
        const quants = at + 16 + (part >> 1) * 32
        for (let i = 0; i < 32; i++) {
          out[to + part * 32 + i] = fround(factor * ((bytes[quants + i]! >> shift) & 15)) - offset
        }
      }
    },
  },
  // 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, half d: x = d·scale·(q - 32)
  Q6_K: {
    size: 256,
    bytes: 210,
    read(bytes, at, out, to) {
      const d = half(bytes, at + 208)
      for (let i = 0; i < 256; i++) {
        const [inHalf, base] = [i & 127, i >> 7]
        const low = (bytes[at + base * 64 + (inHalf & 63)]! >> ((inHalf >> 6) * 4)) & 15
        const high = (bytes[at + 128 + base * 32 + (inHalf & 31)]! >> ((inHalf >> 5) * 2)) & 3
        const scale = signed(bytes[at + 192 + (i >> 4)]!)
        out[to + i] = fround(d * scale) * (low + high * 16 - 32)
      }
    },
  },
}

/** The values of whole blocks, `count` elements. */
export function dequantize(type: Quantized, bytes: Uint8Array, count: number): Float32Array {
  const { size, bytes: blockBytes, read } = READERS[type]
  const out = new Float32Array(count)
  for (let block = 0; block * size < count; block++) read(bytes, block * blockBytes, out, block * size)
  return out
}

/** Scale and minimum of a group of the Q4_K block at byte `at`: x = scale·q − minimum. */
export function scalesOfQ4K(bytes: Uint8Array, at: number, part: number): [scale: number, minimum: number] {
  const [scale, minimum] = sixBits(bytes, at + 4, part)
  return [fround(half(bytes, at) * scale), fround(half(bytes, at + 2) * minimum)]
}

function half(bytes: Uint8Array, at: number): number {
  return float16Value(bytes[at]! | (bytes[at + 1]! << 8))
}

function signed(byte: number): number {
  return (byte << 24) >> 24
}

/** Scale and minimum of a sub-block out of 12 bytes: the low six bits first, the high pairs of the last four apart. */
function sixBits(bytes: Uint8Array, at: number, part: number): [scale: number, minimum: number] {
  if (part < 4) return [bytes[at + part]! & 63, bytes[at + part + 4]! & 63]
  const low = bytes[at + part + 4]!
  return [(low & 15) | ((bytes[at + part - 4]! >> 6) << 4), (low >> 4) | ((bytes[at + part]! >> 6) << 4)]
}
