import type { IntBlockOptions, IntBlocks } from '../packed/int-blocks.ts'
import { FeedbackRounding } from './feedback-rounding.ts'
import { shrinksOf } from './gptq.ts'

/**
 * Rounds a matrix to nearest without data, for a file: codes are those of scales as they are stored, in float16. Symmetric
 * blocks get the one of a few trial scales that leaves the least squared error, and lose far less by it; with zero points of
 * their own a search by squared errors does harm (docs/LOG.md), so those get the scale of their range.
 */
export function roundToNearest(values: Float32Array, options: IntBlockOptions): IntBlocks {
  const { rows, columns, blockSize: groupSize, bits, symmetric } = options
  const grid = { columns, groupSize, bits, symmetric, shrinks: symmetric ? shrinksOf({}) : [1] }
  const weights = { feedback: undefined, diagonal: new Float32Array(columns).fill(1) }
  const inTurn = Int32Array.from({ length: columns }, (_, input) => input)
  return new FeedbackRounding(grid, weights).quantize(values, rows, inTurn)
}
