import { EngineError } from '../errors.ts'
import { heapify, popStrongest, selectLargest } from './candidates.ts'
import { penalises, type SamplingParams } from './sampling-params.ts'

/** What changes single tokens' logits before the draw. */
export interface LogitRules {
  /** Added to the logits of these ids. */
  bias?: ReadonlyMap<number, number>
  /** Bit id % 32 of word id / 32 is 1 where a token may come; undefined allows every one. */
  mask?: Int32Array
  /** Ids that may not come now, whatever their logit. */
  banned?: readonly number[]
}

/** Working memory of all samplers: a draw is synchronous, so one set serves every sequence. */
const scratch = {
  scores: new Float32Array(0),
  weights: new Float64Array(0),
  ids: new Int32Array(0),
}

function reserve(vocabSize: number): void {
  if (scratch.scores.length === vocabSize) return
  scratch.scores = new Float32Array(vocabSize)
  scratch.weights = new Float64Array(vocabSize)
  scratch.ids = new Int32Array(vocabSize)
}

/**
 * Draws one token after another for one sequence, without allocating per token. The order of operations is
 * transformers' and vLLM's: rules, repetition penalty, presence and frequency penalties, temperature, top-k, top-p,
 * min-p, draw. Ties are settled by the lower id, so exactly k tokens survive top-k.
 */
export class Sampler {
  readonly #params: SamplingParams
  readonly #random: () => number
  readonly #penalises: boolean
  /** Tokens of the prompt and the answer, with how often the answer holds each. */
  readonly #seen = new Map<number, number>()

  /** @param random uniform in [0, 1), this sequence's own generator: the same seed draws the same tokens. */
  constructor(params: SamplingParams, random: () => number) {
    this.#params = params
    this.#random = random
    this.#penalises = penalises(params)
  }

  /** Tells the repetition penalty about the prompt. */
  observePrompt(tokens: Iterable<number>): void {
    if (this.#params.repetitionPenalty === 1) return
    for (const token of tokens) this.#seen.set(token, 0)
  }

  /** Tells the penalties about a token of the answer. */
  observe(token: number): void {
    if (this.#penalises) this.#seen.set(token, (this.#seen.get(token) ?? 0) + 1)
  }

  /**
   * The next token for `logits` [vocabSize], which is left as it was.
   * @throws EngineError internal when the logits hold NaN, +Infinity or nothing but -Infinity.
   */
  next(logits: Float32Array, rules?: LogitRules): number {
    reserve(logits.length)
    const scores = this.#adjust(logits, rules)
    const best = argmax(scores)
    const { temperature, topK, topP, minP } = this.#params
    if (temperature === 0 || topK === 1) return best
    if (topK > 0 && topK < scores.length) return this.#drawFromTopK(scores, scores[best]!)
    return topP < 1 || minP > 0
      ? this.#drawFromLikely(scores, scores[best]!)
      : this.#drawFromAll(scores, scores[best]!)
  }

  /** The scores after rules and penalties: the logits themselves where there are none. */
  #adjust(logits: Float32Array, rules: LogitRules | undefined): Float32Array {
    if (rules === undefined && this.#seen.size === 0) return logits
    const scores = scratch.scores
    scores.set(logits)
    if (rules !== undefined) applyRules(scores, rules)
    const { repetitionPenalty, presencePenalty, frequencyPenalty } = this.#params
    for (const [token, count] of this.#seen) {
      let score = scores[token]
      if (score === undefined) continue
      score = score < 0 ? score * repetitionPenalty : score / repetitionPenalty
      scores[token] = count === 0 ? score : score - presencePenalty - frequencyPenalty * count
    }
    return scores
  }

  #drawFromAll(scores: Float32Array, max: number): number {
    const { weights } = scratch
    let remaining = this.#random() * softmaxWeights(scores, max, this.#params.temperature)
    let last = 0
    for (let id = 0; id < weights.length; id++) {
      const weight = weights[id]!
      if (weight === 0) continue
      if (remaining < weight) return id
      remaining -= weight
      last = id
    }
    return last // rounding left a crumb beyond the last token that has a weight
  }

  /** Chooses k by their scores, so that only they need an exponential. */
  #drawFromTopK(scores: Float32Array, max: number): number {
    const { weights, ids } = scratch
    const { topK, temperature } = this.#params
    const count = selectLargest(scores, topK, ids)
    let mass = 0
    for (let at = 0; at < count; at++) {
      const weight = Math.exp((scores[ids[at]!]! - max) / temperature)
      weights[ids[at]!] = weight
      mass += weight
    }
    return this.#drawFromCandidates(count, mass)
  }

  /**
   * Top-p and min-p without top-k. Tokens below (1 - topP) / n of the mass together stay under 1 - topP, so the nucleus
   * is complete without them and the heap stays small.
   */
  #drawFromLikely(scores: Float32Array, max: number): number {
    const { topP, minP, temperature } = this.#params
    const total = softmaxWeights(scores, max, temperature)
    const { weights, ids } = scratch
    const floor = Math.max(((1 - topP) * total) / weights.length, minP)
    let count = 0
    for (let id = 0; id < weights.length; id++) if (weights[id]! >= floor) ids[count++] = id
    return this.#drawFromCandidates(count, total)
  }

  /**
   * Takes from the first `count` ids, the most likely first, until they reach topP of `mass`, and draws among those. The
   * largest weight is 1, so minP compares directly.
   */
  #drawFromCandidates(count: number, mass: number): number {
    const { weights, ids } = scratch
    const { topP, minP } = this.#params
    heapify(weights, ids, count)
    let kept = 0
    let left = count
    while (left > 0) {
      const weight = weights[ids[0]!]!
      if (left < count && (kept >= topP * mass || weight < minP || weight === 0)) break
      popStrongest(weights, ids, left--)
      kept += weight
    }
    let remaining = this.#random() * kept
    // What was taken stands behind the heap, the most likely last.
    for (let at = count - 1; at > left; at--) {
      const weight = weights[ids[at]!]!
      if (remaining < weight) return ids[at]!
      remaining -= weight
    }
    return ids[left]!
  }
}

function applyRules(scores: Float32Array, { bias, mask, banned }: LogitRules): void {
  if (bias) for (const [id, value] of bias) if (id < scores.length) scores[id]! += value
  if (banned) for (const id of banned) if (id < scores.length) scores[id] = -Infinity
  if (!mask) return
  for (let id = 0; id < scores.length; id++) {
    if (((mask[id >> 5]! >>> (id & 31)) & 1) === 0) scores[id] = -Infinity
  }
}

/** Fills the weights with exp((score - max) / temperature) and returns their sum; the largest weight is 1. */
function softmaxWeights(scores: Float32Array, max: number, temperature: number): number {
  const { weights } = scratch
  let sum = 0
  for (let id = 0; id < scores.length; id++) {
    const weight = Math.exp((scores[id]! - max) / temperature)
    weights[id] = weight
    sum += weight
  }
  return sum
}

/** The id of the largest score, the lowest among equals. */
function argmax(scores: Float32Array): number {
  let best = 0
  let broken = false
  for (let id = 0; id < scores.length; id++) {
    const score = scores[id]!
    if (score > scores[best]!) best = id
    broken ||= Number.isNaN(score)
  }
  if (broken || scores.length === 0 || !Number.isFinite(scores[best]!)) {
    throw new EngineError(
      'internal',
      'non_finite_logits',
      'The model produced logits that are not finite numbers; its weights or the adapter are broken.',
    )
  }
  return best
}
