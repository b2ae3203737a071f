import { EngineError } from '../errors.ts'
import { intTensor, type Tensor } from '../tensor.ts'
import { type EncodedExample, IGNORE_INDEX } from '../text/conversation.ts'
import type { TokenBatch } from './step.ts'

/**
 * Puts examples into one right-padded batch of [rows, length], length being the longest example's. A label at position
 * t + 1 is predicted at position t, so its flat position is row * length + t; the label at position 0 has nothing before
 * it and is never trained. A batch without any trained label is allowed and has n = 0.
 */
export function collate(examples: readonly EncodedExample[], padId: number): TokenBatch {
  if (examples.length === 0) {
    throw new EngineError('invalid', 'empty_batch', 'A batch needs at least one example.')
  }
  const rows = examples.length
  const length = Math.max(1, ...examples.map((example) => example.inputIds.length))
  const inputIds = new BigInt64Array(rows * length).fill(BigInt(padId))
  const positions: bigint[] = []
  const labels: bigint[] = []
  let tokens = 0
  for (const [row, example] of examples.entries()) {
    tokens += example.inputIds.length
    for (const [t, id] of example.inputIds.entries()) {
      inputIds[row * length + t] = BigInt(id)
      const label = example.labels[t]!
      if (t === 0 || label === IGNORE_INDEX) continue
      positions.push(BigInt(row * length + t - 1))
      labels.push(BigInt(label))
    }
  }
  return {
    rows,
    length,
    inputIds,
    trainedPositions: BigInt64Array.from(positions),
    labels: BigInt64Array.from(labels),
    tokens,
    ...(examples.some(({ packed }) => packed)
      ? { packed: examples.map(({ packed, inputIds: ids }) => packed ?? [ids.length]) }
      : {}),
  }
}

/** The feeds that tell a graph which positions are trained and on what (nn/loss.ts). */
export function labelFeeds({ trainedPositions, labels }: TokenBatch): Record<string, Tensor> {
  return {
    rows: intTensor(trainedPositions, [trainedPositions.length]),
    labels: intTensor(labels, [labels.length]),
  }
}

/** Sizes of equal parts of the trained positions, for a loss in parts; the last ones may be shorter or empty. */
export function chunkFeed({ labels }: TokenBatch, chunks: number): Record<string, Tensor> {
  if (chunks === 1) return {}
  const size = Math.ceil(labels.length / chunks)
  const sizes = Array.from({ length: chunks }, (_, i) =>
    Math.max(0, Math.min(size, labels.length - i * size)),
  )
  return { chunk_sizes: intTensor(BigInt64Array.from(sizes, BigInt), [chunks]) }
}

/** How many labels of an example are trained: those that are not ignored and have a token before them. */
export function trainedTokenCount(example: EncodedExample): number {
  let count = 0
  for (let t = 1; t < example.labels.length; t++) if (example.labels[t] !== IGNORE_INDEX) count++
  return count
}
