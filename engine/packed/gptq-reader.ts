import { EngineError } from '../errors.ts'
import { type IntBlocks, packedBytes, put } from './int-blocks.ts'

/** One linear module as GPTQ's safetensors hold it (arXiv:2210.17323, AutoGPTQ's layout). */
export interface GptqTensors {
  bits: 4 | 8
  inFeatures: number
  outFeatures: number
  /** Inputs that share a scale; the whole row where the config says -1. */
  groupSize: number
  /** int32 [in · bits / 32, out]: codes along the inputs, the first in the low bits. */
  qweight: Int32Array
  /** int32 [groups, out · bits / 32]: zero points along the outputs. */
  qzeros: Int32Array
  /** [groups, out]. */
  scales: Float32Array
  /** int32 [in]: the group of each input; consecutive groups when left out. */
  groupIndex?: Int32Array
  /** Version 1 stores every zero point one too small, version 2 as it is. */
  zerosMinusOne: boolean
}

/** Blocks along the inputs, and the input that stands at each place where they were reordered (act-order). */
export interface OrderedBlocks {
  blocks: IntBlocks
  /** int32 [in], or undefined where the inputs stand in their own order. */
  order: Int32Array | undefined
}

/**
 * Unpacks a GPTQ module into rows of blocks: w[n, k] = (code - zero) · scale of k's group. With act-order (groupIndex out
 * of order), inputs are sorted by group so that every group is one block, and `order` tells which input stands where.
 *
 * @throws EngineError `invalid` when a group has more or fewer inputs than groupSize.
 */
export function unpackGptq(tensors: GptqTensors): OrderedBlocks {
  const { bits, inFeatures, outFeatures, groupSize, qweight, scales: stored } = tensors
  const groups = Math.ceil(inFeatures / groupSize)
  const order = orderByGroup(tensors, groups)
  const perWord = 32 / bits
  const mask = 2 ** bits - 1
  const codes = new Uint8Array(packedBytes(inFeatures * outFeatures, bits))
  for (let place = 0; place < inFeatures; place++) {
    const input = order ? order[place]! : place
    const word = Math.floor(input / perWord) * outFeatures
    const shift = bits * (input % perWord)
    for (let output = 0; output < outFeatures; output++) {
      put(codes, output * inFeatures + place, (qweight[word + output]! >>> shift) & mask, bits)
    }
  }
  const zeros = new Uint8Array(packedBytes(groups * outFeatures, bits))
  const scales = new Float32Array(groups * outFeatures)
  const width = Math.ceil(outFeatures / perWord)
  for (let group = 0; group < groups; group++) {
    for (let output = 0; output < outFeatures; output++) {
      const word = tensors.qzeros[group * width + Math.floor(output / perWord)]!
      const code = (word >>> (bits * (output % perWord))) & mask
      put(zeros, output * groups + group, (code + (tensors.zerosMinusOne ? 1 : 0)) & mask, bits)
      scales[output * groups + group] = stored[group * outFeatures + output]!
    }
  }
  const blocks = { bits, rows: outFeatures, columns: inFeatures, blockSize: groupSize, codes, scales, zeros }
  return { blocks, order }
}

/** Inputs sorted by group, each group in its own order; undefined when they stand so already. */
function orderByGroup({ groupIndex, groupSize, inFeatures }: GptqTensors, groups: number) {
  if (!groupIndex || groupIndex.every((group, input) => group === Math.floor(input / groupSize))) {
    return undefined
  }
  const members = Array.from({ length: groups }, (): number[] => [])
  for (const [input, group] of groupIndex.entries()) members[group]?.push(input)
  const sizes = members.map(({ length }) => length)
  const expected = members.map((_, group) => Math.min(groupSize, inFeatures - group * groupSize))
  if (sizes.join() !== expected.join()) {
    throw new EngineError(
      'invalid',
      'gptq_groups_malformed',
      `g_idx puts ${sizes.join(', ')} inputs into the groups, but group_size ${groupSize} asks for ${expected.join(', ')}`,
    )
  }
  return Int32Array.from(members.flat())
}
