import type { Value } from '../graph/values.ts'
import type { DecoderConfig } from './config.ts'
import { modelHead } from './decoder-layer.ts'
import type { ModelBuilder } from './model-builder.ts'

/** Extent of the graph's inputs `rows` and `labels`. */
export const TRAINED = 'trained'

/** What a graph knows of each trained position, [trained]. */
export interface TokenScores {
  /** -log softmax(logits)[label]. */
  readonly losses: Value
  /** 1 where the label has the highest logit, else 0; it costs nothing where no output reads it. */
  readonly correct: Value
}

/**
 * Scores the trained positions: only these get logits. `hidden` is [batch*seq, width]; the inputs `rows` and `labels`, int64
 * [trained], name the positions in it and the tokens to predict there. With more than one of the builder's `lossChunks`
 * the input `chunk_sizes` cuts them into so many parts, and no two parts' logits need be in memory together.
 */
export function tokenScores(m: ModelBuilder, config: DecoderConfig, hidden: Value): TokenScores {
  const { g } = m
  const rows = g.input('rows', 'int64', [TRAINED])
  const labels = g.input('labels', 'int64', [TRAINED])
  g.bindDim(TRAINED, rows, 0)
  const head = g.scope('lm_head', () => modelHead(m, config))
  const scoresOf = (states: Value, targets: Value): TokenScores => {
    const logits = g.scope('lm_head', () => head(states))
    return g.scope('loss', () => ({
      losses: g.SoftmaxCrossEntropyLoss(logits, targets)[0],
      correct: g.Cast(g.Equal(g.ArgMax(logits, 1), targets), 'float32'),
    }))
  }
  const states = g.Gather(hidden, rows)
  if (m.lossChunks === 1) return scoresOf(states, labels)
  const sizes = Array.from({ length: m.lossChunks }, (_, chunk) => `trained(${chunk})`)
  const found = g.input('chunk_sizes', 'int64', [m.lossChunks])
  const [stateParts, labelParts] = [g.Split(states, 0, sizes, found), g.Split(labels, 0, sizes, found)]
  const parts = stateParts.map((part, chunk) => scoresOf(part, labelParts[chunk]!))
  const joined = (of: (scores: TokenScores) => Value) => g.Concat(parts.map(of), 0, TRAINED)
  return { losses: joined(({ losses }) => losses), correct: joined(({ correct }) => correct) }
}

/** Only the losses of tokenScores. */
export function tokenLosses(m: ModelBuilder, config: DecoderConfig, hidden: Value): Value {
  return tokenScores(m, config, hidden).losses
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
