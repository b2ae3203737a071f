import { createRandom } from '../random.ts'
import { elementCount, floatTensor, type Tensor } from '../tensor.ts'
import type { TokenBatch } from './step.ts'

/** Values that dropout multiplies with, fixed by the seed: 0 with probability `dropout`, else 1 / (1 - dropout). */
export function dropoutPool(shape: readonly number[], dropout: number, seed: number): Tensor {
  const random = createRandom(seed)
  const kept = 1 / (1 - dropout)
  const data = Float32Array.from({ length: elementCount(shape) }, () => (random.next() < dropout ? 0 : kept))
  return floatTensor(data, shape)
}

/** The stream of a step's seed that noise is drawn from; dropout uses stream 0. */
const NOISE_STREAM = 1

/**
 * NEFTune (Jain et al. 2023, arXiv:2310.05914) as transformers adds it: uniform within ±alpha / √(length·width), where
 * the length counts padding.
 */
export function embeddingNoise(
  { rows, length }: TokenBatch,
  width: number,
  alpha: number,
  seed: number,
): Tensor {
  const random = createRandom(seed, NOISE_STREAM)
  const bound = alpha / Math.sqrt(length * width)
  const data = Float32Array.from({ length: rows * length * width }, () => bound * (2 * random.next() - 1))
  return floatTensor(data, [rows * length, width])
}
