import type { Codebook, CodebookBlocks } from '../packed/codebook-blocks.ts'

/**
 * Quantizes `values` in blocks of `blockSize` in their order: scale = max |v|, code = the table's value nearest to
 * v / scale. The number of values must be even and a multiple of `blockSize`; a block of zeros has scale 0.
 */
export function quantizeByCodebook(values: Float32Array, table: Codebook, blockSize: number): CodebookBlocks {
  const codes = new Uint8Array(values.length / 2)
  const scales = new Float32Array(values.length / blockSize)
  const nearest = nearestCode(table)
  for (let block = 0; block < scales.length; block++) {
    const start = block * blockSize
    let largest = 0
    for (let i = start; i < start + blockSize; i++) largest = Math.max(largest, Math.abs(values[i]!))
    scales[block] = largest
    const inverse = largest > 0 ? 1 / largest : 0
    for (let i = start; i < start + blockSize; i++) {
      codes[i >> 1]! |= nearest(values[i]! * inverse) << (i & 1 ? 0 : 4)
    }
  }
  return { codes, scales }
}

/** Look-ups for values in [-1, 1]: enough that no cell holds two borders. */
const CELLS = 4096

/**
 * Finds the nearest value's code: a cell of [-1, 1] tells how many borders between neighbours lie below it, and at most
 * one more lies in it. A tie goes to the lower value.
 */
function nearestCode(table: Codebook): (value: number) => number {
  // -0 and 0 are the same value: the lower code is kept for both
  const ordered = [...table.keys()].sort((a, b) => table[a]! - table[b]! || a - b)
  const distinct = ordered.filter((code, i) => i === 0 || table[code] !== table[ordered[i - 1]!])
  const borders = Float64Array.from(distinct, (code, i) => {
    const next = distinct[i + 1]
    return next === undefined ? Number.POSITIVE_INFINITY : (table[code]! + table[next]!) / 2
  })
  const codes = Uint8Array.from(distinct)
  const below = Uint8Array.from({ length: CELLS + 1 }, (_, cell) => {
    return borders.filter((border) => border < (2 * cell) / CELLS - 1).length
  })
  return (value) => {
    let rank = below[((value + 1) * (CELLS / 2)) | 0]!
    while (value > borders[rank]!) rank++
    return codes[rank]!
  }
}
