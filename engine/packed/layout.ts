import { decodeFloat32 } from '../weights/dtypes.ts'
import type { WeightFolder } from '../weights/weight-folder.ts'
import { dequantizeByCodebook, FP4, NF4 } from './codebook-blocks.ts'
import { dequantizeIntBlocks } from './int-blocks.ts'

/** How the linear modules of a base are held in memory. */
export type WeightScheme = 'nf4' | 'fp4' | 'int4' | 'int8'

export const CODEBOOKS = { nf4: NF4, fp4: FP4 } as const

/** Weights that share a scale, where the rows are a multiple of it long: bitsandbytes' default. */
export const BLOCK_SIZE = 64

/** What the packed file says of itself. */
export interface PackedLayout {
  readonly scheme: WeightScheme
  /** Weights of a row that share a scale and a zero point; of integers only. */
  readonly blockSize: number
}

/** How the weights of a packed file are held; undefined for any other folder. */
export function packedLayout({ metadata }: WeightFolder): PackedLayout | undefined {
  const { scheme, block_size: blockSize } = metadata
  return scheme && blockSize ? { scheme: scheme as WeightScheme, blockSize: Number(blockSize) } : undefined
}

/** A tensor's values in float32, of a packed file what its codes stand for. */
export function readWeight(weights: WeightFolder, name: string): Float32Array {
  const layout = packedLayout(weights)
  if (!layout || weights.has(name)) return weights.readFloat32(name)
  const codes = weights.readRaw(`${name}.codes`)
  const scales = decodeFloat32(weights.readRaw(`${name}.scales`), 'float32')
  if (layout.scheme === 'nf4' || layout.scheme === 'fp4') {
    return dequantizeByCodebook({ codes, scales }, CODEBOOKS[layout.scheme])
  }
  const bits = layout.scheme === 'int4' ? 4 : 8
  const rows = weights.entry(`${name}.scales`).shape[0]!
  const columns = (codes.length * 8) / bits / rows
  const blockSize = Math.min(layout.blockSize, columns)
  const zeros = weights.readRaw(`${name}.zeros`)
  const values = dequantizeIntBlocks({ bits, rows, columns, blockSize, codes, scales, zeros })
  if (!weights.has(`${name}.place`)) return values
  const place = new BigInt64Array(weights.readRaw(`${name}.place`).slice().buffer)
  return values.map((_, i) => values[i - (i % columns) + Number(place[i % columns])]!)
}

/** Bytes that the linear modules take when they are packed, scales and zero points of usual blocks included. */
export function packedBytesOf(
  scheme: WeightScheme,
  modules: Iterable<{ inFeatures: number; outFeatures: number }>,
): number {
  const bits = scheme === 'int8' ? 8 : 4
  const zeroBits = scheme === 'nf4' || scheme === 'fp4' ? 0 : bits
  let bytes = 0
  for (const { inFeatures, outFeatures } of modules) {
    bytes += (inFeatures * outFeatures * (bits + (32 + zeroBits) / BLOCK_SIZE)) / 8
  }
  return bytes
}
