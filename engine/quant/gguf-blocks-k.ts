import type { BlockFormat } from './block-format.ts'
import { packSymmetric, packWithMinima } from './gguf-kernel-k.ts'

/** Weights in one super-block. */
const SIZE = 256

/**
 * Eight groups of 32: x ≈ d · s · q − e · m with q in 0…15 and 6-bit s, m for each group.
 * Bytes: d, e (f16); 12 bytes with the eight s and m: 0–3 and 4–7 hold those of groups 0–3 with two bits of groups 4–7 on
 * top, 8–11 the low halves of groups 4–7; 128 bytes, where 32 bytes hold one group in their low and the next group in their
 * high halves.
 */
export const q4k: BlockFormat = {
  ggmlType: 12,
  blockSize: SIZE,
  blockBytes: 144,
  quantize: packWithMinima,
}

/**
 * Sixteen groups of 16: x ≈ d · s · (q − 32) with q in 0…63 and a signed byte s for each group.
 * Bytes: 128 with the low four bits, 64 with the high two, 16 scales, d (f16). Each half of 128 weights stores weight
 * i of its four rows of 32 in low[i] and low[i + 32] (rows 0, 1 low halves; 2, 3 high halves) and high[i] (2 bits a row).
 */
export const q6k: BlockFormat = {
  ggmlType: 14,
  blockSize: SIZE,
  blockBytes: 210,
  quantize: packSymmetric,
}
