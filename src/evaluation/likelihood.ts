import { EngineError } from '../../engine/errors.ts'
import { type EncodedExample, IGNORE_INDEX } from '../../engine/text/conversation.ts'
import type { EngineHosts } from '../engine-host/client.ts'
import type { EvaluatedModel } from './task.ts'
import { type TooLong, tooLongMetric, unlessTooLong } from './too-long.ts'

/** What a model makes of one example's learned tokens. */
export interface LikelihoodRow extends TooLong {
  tokens: number
  /** Σ -log p(token), in nats. */
  nll: number
  /** Tokens that were the likeliest at their place. */
  correct: number
}

/** Reads an example through the serving engine; of one that is too long nothing counts. */
export function likelihoodOf(...of: Parameters<typeof readExample>): Promise<LikelihoodRow> {
  return unlessTooLong(readExample(...of), { tokens: 0, nll: 0, correct: 0, too_long: true })
}

async function readExample(
  hosts: EngineHosts,
  { baseFolder, adapterFolder }: EvaluatedModel,
  { inputIds, labels }: EncodedExample,
  signal: AbortSignal,
): Promise<LikelihoodRow> {
  const call = { kind: 'score', prompt: [...inputIds], top: 1, adapterFolder } as const
  const { tokens } = await hosts.call(baseFolder, call, signal)
  const row = { tokens: 0, nll: 0, correct: 0 }
  // Nothing stands before the first token, so nothing predicts it.
  for (let place = 1; place < labels.length; place++) {
    if (labels[place] === IGNORE_INDEX) continue
    const { id, logprob, top } = tokens[place]!
    row.tokens++
    row.nll -= logprob
    if (top[0]?.id === id) row.correct++
  }
  return row
}

/**
 * Loss and accuracy over all learned tokens alike, and perplexity = exp(loss).
 *
 * @throws EngineError `no_valid_samples` where all rows are too long.
 */
export function likelihoodMetrics(rows: readonly LikelihoodRow[]): Record<string, number> {
  const sum = (field: 'tokens' | 'nll' | 'correct') => rows.reduce((total, row) => total + row[field], 0)
  const tokens = sum('tokens')
  if (tokens === 0) {
    const message = 'Every row is longer than the model can read; lower cutoff_len to cut them.'
    throw new EngineError('invalid', 'no_valid_samples', message, { param: 'cutoff_len' })
  }
  const loss = sum('nll') / tokens
  const read = rows.filter(({ too_long: isTooLong }) => !isTooLong)
  return {
    eval_loss: loss,
    eval_perplexity: Math.exp(loss),
    eval_accuracy: sum('correct') / tokens,
    eval_tokens: tokens,
    eval_samples: read.length,
    ...tooLongMetric('eval_too_long', rows),
  }
}
