import type { GraphBuilder } from '../graph/builder.ts'
import type { Value } from '../graph/values.ts'
import { byteTable } from '../packed/codebook-blocks.ts'
import { CODEBOOKS, type PackedLayout } from '../packed/layout.ts'
import type { DType } from '../tensor.ts'

/** The tensors of a packed base as they stand in its files. */
export interface StoredTensors {
  readonly g: GraphBuilder
  has(name: string): boolean
  stored(name: string, dtype: DType, shape?: readonly number[]): Value
  storedBytes(name: string): number
  rawBytes(name: string): Uint8Array
}

/**
 * The float32 weight [rows, columns] that a packed module stands for, computed where it is used: nothing but the codes
 * stays in memory. Codebooks are looked up a byte at a time, integers go through DequantizeLinear.
 */
export function packedWeight(
  m: StoredTensors,
  name: string,
  shape: readonly [rows: number, columns: number],
  { scheme, blockSize }: PackedLayout,
): Value {
  const { g } = m
  const [rows, columns] = shape
  const scales = m.stored(`${name}.scales`, 'float32')
  if (scheme === 'nf4' || scheme === 'fp4') {
    const table = g.constant('float32', [256, 2], byteTable(CODEBOOKS[scheme]))
    const codes = g.Cast(m.stored(`${name}.codes`, 'uint8'), 'int32')
    const blocks = scales.shape[0] as number
    const values = g.Reshape(g.Gather(table, codes), [blocks, (rows * columns) / blocks])
    return g.Reshape(g.Mul(values, scales), [...shape])
  }
  const type = scheme === 'int4' ? 'uint4' : 'uint8'
  const codes = m.stored(`${name}.codes`, type, shape)
  const zeros = m.stored(`${name}.zeros`, type, [rows, scales.shape[1] as number])
  const values = g.DequantizeLinear(codes, scales, zeros, Math.min(blockSize, columns))
  return m.has(`${name}.place`) ? g.Gather(values, m.stored(`${name}.place`, 'int64'), 1) : values
}
