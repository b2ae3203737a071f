import { greatestCommonDivisor } from '../integers.ts'
import { dequantizeByCodebook } from '../packed/codebook-blocks.ts'
import { dequantizeIntBlocks } from '../packed/int-blocks.ts'
import { BLOCK_SIZE, CODEBOOKS, type WeightScheme } from '../packed/layout.ts'
import { quantizeByCodebook } from './round-codebook-blocks.ts'
import { quantizeIntBlocks } from './round-int-blocks.ts'

/** What a weight [rows, columns] becomes when `packBase` packs it: quantized and read back. */
export function roundTrip(
  values: Float32Array,
  [rows, columns]: readonly [number, number],
  scheme: WeightScheme,
): Float32Array {
  if (scheme === 'nf4' || scheme === 'fp4') {
    const table = CODEBOOKS[scheme]
    return dequantizeByCodebook(quantizeByCodebook(values, table, codebookBlock(columns)), table)
  }
  const bits = scheme === 'int4' ? 4 : 8
  const blockSize = Math.min(BLOCK_SIZE, columns)
  const options = { bits, rows, columns, blockSize, symmetric: bits === 8 } as const
  return dequantizeIntBlocks(quantizeIntBlocks(values, options))
}

/** Weights that share a scale of a codebook: a block never spans two rows. */
export function codebookBlock(columns: number): number {
  return greatestCommonDivisor(BLOCK_SIZE, columns)
}
