import { EngineError } from '../errors.ts'
import type { BlockFormat } from './block-format.ts'
import { q4k, q6k } from './gguf-blocks-k.ts'
import { q4_0, q4_1, q8_0 } from './gguf-blocks-simple.ts'

/** Quantized element types of GGUF that are written here, as ggml names them; engine/gguf/dequantize.ts reads them. */
export type GgufBlockType = 'Q8_0' | 'Q4_0' | 'Q4_1' | 'Q4_K' | 'Q6_K'

export const ggufBlocks: Readonly<Record<GgufBlockType, BlockFormat>> = {
  Q8_0: q8_0,
  Q4_0: q4_0,
  Q4_1: q4_1,
  Q4_K: q4k,
  Q6_K: q6k,
}

/**
 * Packs weights.
 *
 * @throws EngineError `invalid` when their number is not a multiple of the block size.
 */
export function quantizeBlocks(values: Float32Array, type: GgufBlockType): Uint8Array {
  const { blockSize, blockBytes, quantize } = ggufBlocks[type]
  if (values.length % blockSize !== 0) {
    throw new EngineError(
      'invalid',
      'partial_block',
      `${values.length} weights are no whole number of ${type} blocks of ${blockSize}`,
    )
  }
  const target = new Uint8Array((values.length / blockSize) * blockBytes)
  quantize(values, target)
  return target
}
