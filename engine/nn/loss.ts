import type { Value } from '../graph/values.ts'
import type { ModelBuilder } from './model-builder.ts'

/**
 * loss = token_weight · Σ -log softmax(logits)[label]: a scalar. logits [trained, vocabulary], labels int64 [trained].
 * With token_weight = 1 / (trained tokens of the optimizer step) it is the mean that transformers reports.
 */
export function weightedCrossEntropy(
  m: ModelBuilder,
  logits: Value,
  labels: Value,
  tokenWeight: Value,
): Value {
  return m.g.scope('loss', () => {
    const [perToken] = m.g.SoftmaxCrossEntropyLoss(logits, labels)
    return m.g.Mul(m.g.ReduceSum(perToken, [0], 0), tokenWeight)
  })
}
