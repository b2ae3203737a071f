import type { Value } from '../graph/values.ts'
import type { PackedLayout } from '../packed/layout.ts'
import type { LinearModule } from './linear-module.ts'
import type { StoredTensors } from './packed-weight.ts'

/**
 * Whether modules of a packed base can be multiplied as they are packed: integers in blocks that MatMulNBits takes,
 * whose inputs stand in their order.
 */
export function hasPackedProduct(
  m: StoredTensors,
  modules: readonly LinearModule[],
  { scheme, blockSize }: PackedLayout,
): boolean {
  const blocksFit = blockSize >= 16 && Number.isInteger(Math.log2(blockSize))
  return (
    blocksFit &&
    (scheme === 'int4' || scheme === 'int8') &&
    modules.every(
      ({ path, inFeatures }) =>
        inFeatures % blockSize === 0 && m.has(`${path}.weight.codes`) && !m.has(`${path}.weight.place`),
    )
  )
}

/**
 * x·Wᵀ over modules with packed weights, one below the other. Activations are rounded to 8 bits, block by block of each
 * row (accuracy level 4), so that the product is one of integers; no row's rounding depends on another row.
 */
export function packedProduct(
  m: StoredTensors,
  x: Value,
  modules: readonly LinearModule[],
  { blockSize }: PackedLayout,
): Value {
  const { g } = m
  const { path, inFeatures, outFeatures: rows } = modules[0]!
  const blocks = inFeatures / blockSize
  const bits = m.storedBytes(`${path}.weight.codes`) === inFeatures * rows ? 8 : 4
  const joined = (part: (module: LinearModule) => Value) =>
    modules.length === 1 ? part(modules[0]!) : g.Concat(modules.map(part), 0)
  const stored = (name: string, dtype: 'uint8' | 'float32', row: readonly number[]) =>
    joined((module) => m.stored(`${module.path}.weight.${name}`, dtype, [module.outFeatures, ...row]))
  const zeros =
    bits === 4 && blocks % 2 === 1
      ? joined((module) => paddedZeros(m, module, blocks))
      : stored('zeros', 'uint8', [(blocks * bits) / 8])
  return g.MatMulNBits(
    x,
    stored('codes', 'uint8', [blocks, (blockSize * bits) / 8]),
    stored('scales', 'float32', [blocks]),
    zeros,
    {
      K: inFeatures,
      N: modules.reduce((sum, { outFeatures }) => sum + outFeatures, 0),
      bits,
      block_size: blockSize,
      accuracy_level: 4,
    },
  )
}

/** 4-bit zero points with a whole number of bytes for each row, where the file packs them without gaps. */
function paddedZeros(m: StoredTensors, { path, outFeatures }: LinearModule, blocks: number): Value {
  m.stored(`${path}.weight.zeros`, 'uint8') // counts as read; the graph keeps the padded copy alone
  const flat = m.rawBytes(`${path}.weight.zeros`)
  const width = Math.ceil(blocks / 2)
  const padded = new Uint8Array(outFeatures * width)
  for (let row = 0; row < outFeatures; row++) {
    for (let block = 0; block < blocks; block++) {
      const index = row * blocks + block
      padded[row * width + (block >> 1)]! |=
        ((flat[index >> 1]! >> (4 * (index & 1))) & 15) << (4 * (block & 1))
    }
  }
  return m.g.constant('uint8', [outFeatures, width], padded)
}
