import { type IntBlockOptions, type IntBlocks, packedBytes, put } from '../packed/int-blocks.ts'
import { roundMatrix, STEP } from './int-kernel.ts'

/**
 * Rounds to the nearest of evenly spaced values (round to nearest, RTN), block by block. Symmetric: scale = max |w| /
 * (2^(bits-1) - 1), zero = 2^(bits-1). Asymmetric: scale = (max - min) / (2^bits - 1) over a range that holds 0, and
 * zero = round(-min / scale), so 0 is kept exactly either way.
 */
export function quantizeIntBlocks(values: Float32Array, options: IntBlockOptions): IntBlocks {
  const { bits, rows, columns, blockSize, symmetric } = options
  const blocks = Math.ceil(columns / blockSize)
  const codes = new Uint8Array(packedBytes(rows * columns, bits))
  const scales = new Float32Array(rows * blocks)
  const zeros = new Uint8Array(packedBytes(rows * blocks, bits))
  if (columns % STEP === 0 && blockSize % STEP === 0) {
    const zeroBytes = bits === 8 ? zeros : new Uint8Array(rows * blocks)
    roundMatrix(values, options, { codes, scales, zeros: zeroBytes })
    if (bits === 4) for (const [block, zero] of zeroBytes.entries()) put(zeros, block, zero, bits)
    return { bits, rows, columns, blockSize, codes, scales, zeros }
  }
  const largest = 2 ** bits - 1
  for (let block = 0; block < rows * blocks; block++) {
    const row = Math.floor(block / blocks)
    const start = row * columns + (block % blocks) * blockSize
    const end = Math.min(start + blockSize, (row + 1) * columns)
    const { scale, zero } = gridOf(values, start, end, bits, symmetric)
    scales[block] = scale
    put(zeros, block, zero, bits)
    const inverse = scale > 0 ? 1 / scale : 0
    for (let i = start; i < end; i++) {
      // round(w / scale) + zero, as the whole part of w / scale + zero + 1/2, within the range
      const code = (values[i]! * inverse + (zero + 0.5)) | 0
      put(codes, i, code < 0 ? 0 : Math.min(code, largest), bits)
    }
  }
  return { bits, rows, columns, blockSize, codes, scales, zeros }
}

function gridOf(values: Float32Array, start: number, end: number, bits: 4 | 8, symmetric: boolean) {
  let [low, high] = [0, 0]
  for (let i = start; i < end; i++) {
    const value = values[i]!
    if (value < low) low = value
    else if (value > high) high = value
  }
  const middle = 2 ** (bits - 1)
  if (symmetric) return { scale: Math.fround(Math.max(-low, high) / (middle - 1)), zero: middle }
  const scale = Math.fround((high - low) / (2 ** bits - 1))
  return { scale, zero: scale > 0 ? Math.round(-low / scale) : 0 }
}
