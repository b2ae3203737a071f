import { scalesOfQ4K } from '../gguf/dequantize.ts'
import { float16Value } from '../weights/dtypes.ts'
import type { GgufBlockType } from './gguf-blocks.ts'

/** GGUF's block types of 256 weights whose groups have a scale of few bits. */
export type GgufSuperType = 'Q4_K' | 'Q6_K'

/** Evenly spaced values for every group of a row: w = (code − zero) · scale with codes from 0 to `highest`. */
export interface FixedGrid {
  readonly highest: number
  /** [rows, groups]. */
  readonly scales: Float32Array
  /** [rows, groups]; real numbers. */
  readonly zeros: Float32Array
}

/** A matrix as a GGUF file holds it, row after row. */
export interface PackedBlocks {
  readonly type: GgufBlockType
  readonly bytes: Uint8Array
}

/** How codes of a byte each are rounded for the types. */
export const SUPER_GRIDS = {
  Q4_K: { bits: 8, groupSize: 32, symmetric: true, signedScales: false },
  Q6_K: { bits: 8, groupSize: 16, symmetric: true, signedScales: false },
} as const

const SIZE = 256
const Q4_BYTES = 144
const Q6_BYTES = 210

/** What values the packed blocks can take: their scales and minima as they stand in the bytes (gguf-blocks-k.ts). */
export function gridOf(type: GgufSuperType, packed: Uint8Array): FixedGrid {
  return type === 'Q4_K' ? gridOfQ4K(packed) : gridOfQ6K(packed)
}

function gridOfQ4K(packed: Uint8Array): FixedGrid {
  const count = (packed.length / Q4_BYTES) * 8
  const [scales, zeros] = [new Float32Array(count), new Float32Array(count)]
  for (let at = 0, first = 0; at < packed.length; at += Q4_BYTES, first += 8) {
    for (let group = 0; group < 8; group++) {
      const [scale, minimum] = scalesOfQ4K(packed, at, group)
      scales[first + group] = scale
      zeros[first + group] = scale === 0 ? 0 : minimum / scale
    }
  }
  return { highest: 15, scales, zeros }
}

function gridOfQ6K(packed: Uint8Array): FixedGrid {
  const scales = new Float32Array((packed.length / Q6_BYTES) * 16)
  for (let at = 0, first = 0; at < packed.length; at += Q6_BYTES, first += 16) {
    const d = float16Value(packed[at + 208]! | (packed[at + 209]! << 8))
    for (let group = 0; group < 16; group++)
      scales[first + group] = d * ((packed[at + 192 + group]! << 24) >> 24)
  }
  return { highest: 63, scales, zeros: new Float32Array(scales.length).fill(32) }
}

/** Puts other codes, a byte for each weight, into packed blocks, which keep their scales. */
export function setCodes(type: GgufSuperType, packed: Uint8Array, codes: Uint8Array): void {
  const [blockBytes, set] = type === 'Q4_K' ? ([Q4_BYTES, setQ4K] as const) : ([Q6_BYTES, setQ6K] as const)
  for (let from = 0, to = 0; from < codes.length; from += SIZE, to += blockBytes) {
    set(packed.subarray(to, to + blockBytes), codes.subarray(from, from + SIZE))
  }
}

function setQ4K(block: Uint8Array, codes: Uint8Array): void {
  for (let pair = 0; pair < 4; pair++) {
    for (let i = 0; i < 32; i++) {
      block[16 + 32 * pair + i] = codes[64 * pair + i]! | (codes[64 * pair + 32 + i]! << 4)
    }
  }
}

function setQ6K(block: Uint8Array, codes: Uint8Array): void {
  for (let half = 0; half < 2; half++) {
    for (let i = 0; i < 32; i++) {
      const rows = [0, 1, 2, 3].map((row) => codes[128 * half + 32 * row + i]!)
      block[64 * half + i] = (rows[0]! & 15) | ((rows[2]! & 15) << 4)
      block[64 * half + 32 + i] = (rows[1]! & 15) | ((rows[3]! & 15) << 4)
      block[128 + 32 * half + i] =
        (rows[0]! >> 4) | ((rows[1]! >> 4) << 2) | ((rows[2]! >> 4) << 4) | ((rows[3]! >> 4) << 6)
    }
  }
}
