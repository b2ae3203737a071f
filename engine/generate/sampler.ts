import { EngineError } from '../errors.ts'
import { topCandidates } from './top-k.ts'

/** How the next token is drawn. Names and meanings are those of transformers' GenerationConfig and of vLLM. */
export interface SamplingParams {
  /** Divides the logits; 0 is greedy: the largest logit, the lowest id among equals. */
  temperature: number
  /** Keep the k most likely tokens; 0 keeps all. */
  topK: number
  /** Keep the smallest set of most likely tokens whose probability reaches this; 1 keeps all. */
  topP: number
  /** Drop tokens less likely than this fraction of the most likely one; 0 drops none. */
  minP: number
  /** Above 1 makes tokens of the prompt and of the answer less likely (Keskar et al. 2019, CTRL); 1 is off. */
  repetitionPenalty: number
}

/** What a request that says nothing gets: OpenAI's defaults, the model's distribution as it is. */
export const DEFAULT_SAMPLING: SamplingParams = {
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
}

const RULES: { [K in keyof SamplingParams]: { param: string; wants: string; ok(value: number): boolean } } = {
  temperature: { param: 'temperature', wants: 'a number from 0 to 100', ok: (v) => v >= 0 && v <= 100 },
  topK: {
    param: 'top_k',
    wants: 'a whole number, 0 or -1 for all',
    ok: (v) => Number.isInteger(v) && v >= -1,
  },
  topP: { param: 'top_p', wants: 'a number above 0 and at most 1', ok: (v) => v > 0 && v <= 1 },
  minP: { param: 'min_p', wants: 'a number from 0 to 1', ok: (v) => v >= 0 && v <= 1 },
  repetitionPenalty: { param: 'repetition_penalty', wants: 'a number above 0', ok: (v) => v > 0 && v < 1e6 },
}

/**
 * Completes `asked` from `defaults` and checks every value.
 * @throws EngineError invalid, with `param` naming the field in its HTTP spelling.
 */
export function samplingParams(
  asked: Partial<SamplingParams>,
  defaults: SamplingParams = DEFAULT_SAMPLING,
): SamplingParams {
  const result = { ...defaults }
  for (const key of Object.keys(RULES) as (keyof SamplingParams)[]) {
    const value = asked[key] ?? defaults[key]
    const { param, wants, ok } = RULES[key]
    if (typeof value !== 'number' || !ok(value)) {
      throw new EngineError('invalid', 'invalid_value', `${param} is ${value}; it must be ${wants}.`, {
        param,
      })
    }
    result[key] = value
  }
  return result
}

/**
 * Draws one token after another for one sequence. The order of operations is transformers': repetition penalty,
 * temperature, top-k, top-p, min-p, draw. Ties are settled by the lower id, so exactly k tokens survive top-k.
 */
export class Sampler {
  readonly #params: SamplingParams
  readonly #random: () => number
  readonly #seen = new Set<number>()
  #scratch = new Float32Array(0)
  #weights = new Float64Array(0)

  /** @param random uniform in [0, 1), this sequence's own generator: the same seed draws the same tokens. */
  constructor(params: SamplingParams, random: () => number) {
    this.#params = params
    this.#random = random
  }

  /** Tells the repetition penalty about tokens of the prompt or of the answer. */
  observe(tokens: Iterable<number>): void {
    if (this.#params.repetitionPenalty === 1) return
    for (const token of tokens) this.#seen.add(token)
  }

  /**
   * The next token for `logits` [vocabSize], which is left as it was.
   * @throws EngineError internal when the logits hold NaN, +Infinity or nothing but -Infinity.
   */
  next(logits: Float32Array): number {
    const scores = this.#penalise(logits)
    const best = argmax(scores)
    const { temperature, topK } = this.#params
    if (temperature === 0 || topK === 1) return best
    return this.#restricts(scores.length)
      ? this.#drawRestricted(scores, scores[best]!)
      : this.#drawFromAll(scores, scores[best]!)
  }

  #limitsTopK(vocabSize: number): boolean {
    return this.#params.topK > 0 && this.#params.topK < vocabSize
  }

  #restricts(vocabSize: number): boolean {
    return this.#limitsTopK(vocabSize) || this.#params.topP < 1 || this.#params.minP > 0
  }

  #penalise(logits: Float32Array): Float32Array {
    if (this.#seen.size === 0) return logits
    if (this.#scratch.length !== logits.length) this.#scratch = new Float32Array(logits.length)
    const scores = this.#scratch
    scores.set(logits)
    const penalty = this.#params.repetitionPenalty
    for (const token of this.#seen) {
      const score = scores[token]
      if (score !== undefined) scores[token] = score < 0 ? score * penalty : score / penalty
    }
    return scores
  }

  /** Fills #weights with exp((score - max) / temperature) and returns their sum; the largest weight is 1. */
  #softmaxWeights(scores: Float32Array, max: number): number {
    if (this.#weights.length !== scores.length) this.#weights = new Float64Array(scores.length)
    const weights = this.#weights
    const { temperature } = this.#params
    let sum = 0
    for (let id = 0; id < scores.length; id++) {
      const weight = Math.exp((scores[id]! - max) / temperature)
      weights[id] = weight
      sum += weight
    }
    return sum
  }

  #drawFromAll(scores: Float32Array, max: number): number {
    const total = this.#softmaxWeights(scores, max)
    const weights = this.#weights
    let remaining = this.#random() * total
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

  #drawRestricted(scores: Float32Array, max: number): number {
    const total = this.#softmaxWeights(scores, max)
    const weights = this.#weights
    const { topK, topP, minP } = this.#params
    const limited = this.#limitsTopK(scores.length)
    const candidates = limited ? topCandidates(weights, topK) : this.#likelyCandidates(total)
    const falling = weightsOf(candidates, weights).sort().reverse()
    const mass = limited ? falling.reduce((sum, weight) => sum + weight, 0) : total
    let kept = 0
    let count = 0
    for (const weight of falling) {
      // The first candidate always stays; its weight is 1, so minP compares directly.
      if (count > 0 && (kept >= topP * mass || weight < minP || weight === 0)) break
      kept += weight
      count++
    }
    return this.#drawKept(candidates, falling.subarray(0, count), this.#random() * kept)
  }

  /** Draws among the candidates whose weights are `kept`: where equal weights were cut apart, the lower ids. */
  #drawKept(candidates: readonly number[], kept: Float64Array, at: number): number {
    const threshold = kept[kept.length - 1]!
    let ties = kept.length - kept.indexOf(threshold)
    let remaining = at
    let last = 0
    for (const id of candidates) {
      const weight = this.#weights[id]!
      if (weight < threshold || (weight === threshold && ties-- <= 0)) continue
      if (remaining < weight) return id
      remaining -= weight
      last = id
    }
    return last
  }

  /**
   * Candidates for top-p and min-p by rising id. Tokens below (1 - topP) / n of the mass together stay under 1 - topP,
   * so the nucleus is complete without them and the sort stays short.
   */
  #likelyCandidates(total: number): number[] {
    const weights = this.#weights
    const { topP, minP } = this.#params
    const floor = Math.max(((1 - topP) * total) / weights.length, minP)
    const candidates: number[] = []
    for (let id = 0; id < weights.length; id++) if (weights[id]! >= floor) candidates.push(id)
    return candidates
  }
}

function weightsOf(ids: readonly number[], weights: Float64Array): Float64Array {
  const chosen = new Float64Array(ids.length)
  for (let i = 0; i < ids.length; i++) chosen[i] = weights[ids[i]!]!
  return chosen
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
