import { heapify, popStrongest, selectLargest } from './candidates.ts'

/** How likely the model itself found a token: the logarithm of its softmax at temperature 1, before rules and penalties. */
export interface TokenLogprob {
  id: number
  logprob: number
  /** The most likely tokens at this place, the likeliest first. */
  top: { id: number; logprob: number }[]
}

/** The log-probability of `token` and of the `top` likeliest tokens for one row of logits [vocabSize]. */
export function tokenLogprob(logits: Float32Array, token: number, top: number): TokenLogprob {
  const total = logSumExp(logits)
  const ids = new Int32Array(Math.min(top, logits.length))
  const count = selectLargest(logits, ids.length, ids)
  heapify(logits, ids, count)
  const ranked: TokenLogprob['top'] = []
  for (let left = count; left > 0; left--) {
    const id = popStrongest(logits, ids, left)
    ranked.push({ id, logprob: logits[id]! - total })
  }
  return { id: token, logprob: logits[token]! - total, top: ranked }
}

/** log Σ exp(x), with the largest taken out so that nothing overflows. */
function logSumExp(values: Float32Array): number {
  let max = -Infinity
  for (let i = 0; i < values.length; i++) if (values[i]! > max) max = values[i]!
  let sum = 0
  for (let i = 0; i < values.length; i++) sum += Math.exp(values[i]! - max)
  return max + Math.log(sum)
}
