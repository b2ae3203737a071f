/** Values that a 4-bit code can stand for, by code; a block's largest absolute value scales them. */
export type Codebook = Float32Array

/** NormalFloat-4: quantiles of the normal distribution, exactly zero included (QLoRA, arXiv:2305.14314, appendix E). */
export const NF4: Codebook = Float32Array.of(
  -1,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1,
)

/** A sign, three bits of floating point: bitsandbytes' FP4, scaled so that the largest is 1. */
export const FP4: Codebook = Float32Array.of(
  ...[0, 1 / 192, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4],
  ...[-0, -1 / 192, -2 / 3, -1, -1 / 3, -1 / 2, -1 / 6, -1 / 4],
)

/** Two codes a byte, the first in the high half as bitsandbytes packs them, and one scale for each block. */
export interface CodebookBlocks {
  readonly codes: Uint8Array
  readonly scales: Float32Array
}

/** The values that the blocks stand for, in their order. */
export function dequantizeByCodebook({ codes, scales }: CodebookBlocks, table: Codebook): Float32Array {
  const values = new Float32Array(codes.length * 2)
  const blockSize = values.length / scales.length
  for (let i = 0; i < values.length; i++) {
    const code = i & 1 ? codes[i >> 1]! & 15 : codes[i >> 1]! >> 4
    values[i] = table[code]! * scales[Math.floor(i / blockSize)]!
  }
  return values
}

/** Both values of every byte, [256, 2]: the table by which a graph dequantizes a byte in one look-up. */
export function byteTable(table: Codebook): Float32Array {
  return Float32Array.from({ length: 512 }, (_, i) => table[i & 1 ? (i >> 1) & 15 : i >> 5]!)
}
