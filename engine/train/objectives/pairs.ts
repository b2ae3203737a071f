import { floatTensor, type Tensor } from '../../tensor.ts'
import type { PairExample } from '../../text/conversation.ts'
import { collate } from '../batch.ts'
import type { TokenBatch } from '../step.ts'

/** Pairs as one batch: all chosen answers, then all rejected ones in the same order. */
export interface PairBatch extends TokenBatch {
  pairs: number
}

export function collatePairs(examples: readonly PairExample[], padId: number): PairBatch {
  const sequences = [...examples.map(({ chosen }) => chosen), ...examples.map(({ rejected }) => rejected)]
  return { ...collate(sequences, padId), pairs: examples.length }
}

/** How many trained positions each row of a batch has. */
export function trainedLengths({ rows, length, trainedPositions }: TokenBatch): Float32Array {
  const lengths = new Float32Array(rows)
  for (const position of trainedPositions) lengths[Math.floor(Number(position) / length)]!++
  return lengths
}

/**
 * The weights that sum the losses of some rows' trained positions (sequenceLogProbabilities): float32 [count, trained] for
 * the rows from `first`, 1 for each of a row's own positions, or 1 / their number for the mean.
 */
export function sequenceWeights(batch: TokenBatch, first: number, count: number, average: boolean): Tensor {
  const trained = batch.trainedPositions.length
  const lengths = trainedLengths(batch)
  const weights = new Float32Array(count * trained)
  for (const [index, position] of batch.trainedPositions.entries()) {
    const row = Math.floor(Number(position) / batch.length)
    if (row < first || row >= first + count) continue
    weights[(row - first) * trained + index] = average ? 1 / lengths[row]! : 1
  }
  return floatTensor(weights, [count, trained])
}
