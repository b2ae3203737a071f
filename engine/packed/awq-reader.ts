import { type IntBlocks, packedBytes, put } from './int-blocks.ts'

/** One linear module as AWQ's safetensors hold it (arXiv:2306.00978, AutoAWQ's 'gemm' layout, 4 bits). */
export interface AwqTensors {
  inFeatures: number
  outFeatures: number
  /** Inputs that share a scale. */
  groupSize: number
  /** int32 [in, out / 8]. */
  qweight: Int32Array
  /** int32 [groups, out / 8]. */
  qzeros: Int32Array
  /** [groups, out]. */
  scales: Float32Array
}

/** Which of its eight outputs each nibble of a word holds, from the low one up: even outputs first, then odd ones. */
const INTERLEAVED = [0, 2, 4, 6, 1, 3, 5, 7]
/** The nibble of each output. */
const NIBBLE_OF = INTERLEAVED.map((_, output) => INTERLEAVED.indexOf(output))

/** Unpacks an AWQ module into rows of blocks along the inputs: w[n, k] = (code - zero) · scale of k's group. */
export function unpackAwq(tensors: AwqTensors): IntBlocks {
  const { inFeatures, outFeatures, groupSize, qweight, qzeros, scales: stored } = tensors
  const groups = Math.ceil(inFeatures / groupSize)
  const scales = new Float32Array(groups * outFeatures)
  for (let group = 0; group < groups; group++) {
    for (let output = 0; output < outFeatures; output++) {
      scales[output * groups + group] = stored[group * outFeatures + output]!
    }
  }
  return {
    bits: 4,
    rows: outFeatures,
    columns: inFeatures,
    blockSize: groupSize,
    codes: transposed(qweight, inFeatures, outFeatures),
    scales,
    zeros: transposed(qzeros, groups, outFeatures),
  }
}

/** Words [rows, outputs / 8] → packed codes [outputs, rows]. */
function transposed(words: Int32Array, rows: number, outputs: number): Uint8Array {
  const width = outputs / 8
  const codes = new Uint8Array(packedBytes(rows * outputs, 4))
  for (let row = 0; row < rows; row++) {
    for (let output = 0; output < outputs; output++) {
      const word = words[row * width + (output >> 3)]!
      put(codes, output * rows + row, (word >>> (4 * NIBBLE_OF[output & 7]!)) & 15, 4)
    }
  }
  return codes
}
