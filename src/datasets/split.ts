import { EngineError } from '../../engine/errors.ts'
import { createRandom } from '../../engine/random.ts'

/** Keeps the split's choice apart from the epochs' orders, which use streams 0, 1, 2, … of the same seed. */
const SPLIT_STREAM = 0xffff_ffff

/**
 * Splits examples into a training and an evaluation part by `val_size`: below 1 a fraction (rounded up), from 1 a count,
 * 0 for none. The seed chooses which; both parts keep the order of the input.
 *
 * @throws EngineError `invalid_val_size` when it is negative, no number, or leaves nothing to train on.
 */
export function splitExamples<T>(
  examples: readonly T[],
  valSize: number,
  seed: number,
): { train: T[]; evaluation: T[] } {
  const count = valSize < 1 ? Math.ceil(examples.length * valSize) : Math.floor(valSize)
  if (!(valSize >= 0) || (count > 0 && count >= examples.length)) {
    throw new EngineError(
      'invalid',
      'invalid_val_size',
      `val_size ${valSize} of ${examples.length} samples leaves nothing to train on: give a fraction below 1 or a ` +
        'smaller count.',
      { param: 'val_size' },
    )
  }
  const order = createRandom(seed, SPLIT_STREAM).shuffle(Uint32Array.from(examples.keys()))
  const chosen = new Set(order.subarray(0, count))
  return {
    train: examples.filter((_, index) => !chosen.has(index)),
    evaluation: examples.filter((_, index) => chosen.has(index)),
  }
}
