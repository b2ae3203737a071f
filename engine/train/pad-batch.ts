import type { TokenBatch } from './step.ts'

/** The batch with rows that are padded to a multiple of `multiple` tokens, by tokens that nothing looks at. */
export function padBatch(batch: TokenBatch, multiple: number): TokenBatch {
  const { rows, length } = batch
  const padded = Math.ceil(length / multiple) * multiple
  if (padded === length) return batch
  const inputIds = new BigInt64Array(rows * padded)
  for (let row = 0; row < rows; row++) {
    inputIds.set(batch.inputIds.subarray(row * length, (row + 1) * length), row * padded)
  }
  const moved = (place: bigint) => {
    const row = place / BigInt(length)
    return row * BigInt(padded) + (place - row * BigInt(length))
  }
  return { ...batch, length: padded, inputIds, trainedPositions: batch.trainedPositions.map(moved) }
}
