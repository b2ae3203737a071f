import type { Value } from '../graph/values.ts'
import type { DecoderConfig } from '../models/config.ts'
import { languageModelHead } from './decoder-layer.ts'
import type { ModelBuilder } from './model-builder.ts'

/** Extent of the graph's inputs `rows` and `labels`. */
export const TRAINED = 'trained'

/**
 * -log softmax(logits)[label] of each trained position, [trained]: only these get logits. `hidden` is [batch*seq, width];
 * the inputs `rows` and `labels`, int64 [trained], name the positions in it and the tokens to predict there.
 */
export function tokenLosses(m: ModelBuilder, config: DecoderConfig, hidden: Value): Value {
  const { g } = m
  const rows = g.input('rows', 'int64', [TRAINED])
  const labels = g.input('labels', 'int64', [TRAINED])
  g.bindDim(TRAINED, rows, 0)
  const logits = languageModelHead(m, config, hidden, rows)
  return g.scope('loss', () => g.SoftmaxCrossEntropyLoss(logits, labels)[0])
}

/**
 * Σ_t weights[s, t] · log p(token t) of each sequence, [sequences], from the losses of the trained positions [trained] and
 * weights [sequences, trained]: 1 where a position belongs to the sequence for the sum, 1 / length for the mean, else 0.
 */
export function sequenceLogProbabilities(m: ModelBuilder, losses: Value, weights: Value): Value {
  const column = m.g.Reshape(losses, [TRAINED, 1])
  return m.g.Reshape(m.g.Gemm(weights, column, { alpha: -1 }), [weights.shape[0]!])
}

/** -log σ(x) = log(1 + exp(-x)), in a form that does not overflow. */
export function negativeLogSigmoid(m: ModelBuilder, x: Value): Value {
  return m.g.Softplus(m.g.Neg(x))
}
