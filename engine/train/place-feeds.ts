import { blockMask, blockPositions, causalMask, consecutivePositions } from '../nn/masks.ts'
import type { Tensor } from '../tensor.ts'
import type { Feeds } from './objectives/objective.ts'
import type { TokenBatch } from './step.ts'

/** Masks of this many lengths are kept. */
const KEPT_MASKS = 16

/**
 * Returns what feeds `position_ids` and `attention_mask` of a batch. With `apart`, examples that are packed into one row
 * do not see each other and each begins at position 0; without, a row is one sequence and all rows share a mask.
 */
export function createPlaceFeeds(apart: boolean): (batch: TokenBatch) => Feeds {
  const known = new Map<number, Tensor>()
  const sharedMask = (length: number): Tensor => {
    const mask = known.get(length) ?? causalMask(length)
    if (known.size >= KEPT_MASKS) known.clear()
    known.set(length, mask)
    return mask
  }
  return ({ rows, length, packed }) => {
    if (!apart) {
      return { position_ids: consecutivePositions(rows, length), attention_mask: sharedMask(length) }
    }
    const lengths = packed ?? Array.from({ length: rows }, () => [length])
    return { position_ids: blockPositions(lengths, length), attention_mask: blockMask(lengths, length) }
  }
}
