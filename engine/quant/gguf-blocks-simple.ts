import type { BlockFormat } from './block-format.ts'
import { packBlocks } from './gguf-kernel.ts'

/** Weights in one block of each format here. */
const SIZE = 32

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
  quantize: (values, target) => packBlocks('q4_1', 20, values, target),
}
