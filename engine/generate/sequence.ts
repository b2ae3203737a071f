import { randomInt } from 'node:crypto'
import { EngineError } from '../errors.ts'
import type { Detokenizer } from '../text/detokenizer.ts'
import { createRandom } from '../train/random.ts'
import type { Decoder, DecoderAdapter } from './decoder.ts'
import type { KvCache } from './kv-cache.ts'
import { Sampler, type SamplingParams } from './sampler.ts'
import { StopMatcher } from './stop-strings.ts'

/** Prompt tokens per forward call: between two chunks a cancel is noticed and other requests get their turn. */
export const PREFILL_CHUNK = 256

/** What generation needs of a decoder. */
export type SequenceDecoder = Pick<Decoder, 'maxPositions' | 'createCache' | 'forward'>

export interface GenerationRequest {
  /** Token ids of the whole prompt, at least one. */
  prompt: Int32Array
  /** The LoRA adapter to answer with; undefined answers with the base. */
  adapter?: DecoderAdapter
  sampling: SamplingParams
  /** Same seed, same text. Undefined draws a fresh one. */
  seed?: number
  /** Tokens to generate at most; clipped to what the context leaves, which is also the default. */
  maxTokens?: number
  /** Strings that end the answer; they are not part of it. */
  stop: readonly string[]
  eosTokenIds: readonly number[]
  /** Go on after an end-of-sequence token, for measurements. */
  ignoreEos?: boolean
  /** This request's own; it drops special tokens or shows them. */
  text: Detokenizer
}

export type GenerationEvent =
  | { type: 'start'; promptTokens: number }
  /** tokenIds: tokens drawn since the last event of this type; text may lag behind them. */
  | { type: 'text'; text: string; tokenIds?: number[] }
  | { type: 'finish'; reason: 'stop' | 'length'; promptTokens: number; completionTokens: number }

/**
 * The state of one request: which tokens to feed next and what the logits after them mean. It runs nothing itself,
 * so one driver can step it alone and another can join many sequences into a batch.
 */
export class Sequence {
  readonly request: GenerationRequest
  readonly maxTokens: number
  readonly #decoder: SequenceDecoder
  readonly #sampler: Sampler
  readonly #stop: StopMatcher
  readonly #eos: ReadonlySet<number>
  #cache: KvCache | undefined
  #fed = 0
  #drawn = 0
  #lastToken = -1
  #unreported: number[] = []
  #finished = false

  /**
   * Checks the request against the decoder; nothing is computed and no cache is made yet.
   * @throws EngineError too_large 'context_length_exceeded'; invalid for an empty prompt, stop or max_tokens below 1.
   */
  constructor(decoder: SequenceDecoder, request: GenerationRequest) {
    this.#decoder = decoder
    this.request = request
    this.maxTokens = tokenBudget(decoder.maxPositions, request)
    this.#stop = new StopMatcher(request.stop)
    this.#eos = new Set(request.ignoreEos ? [] : request.eosTokenIds)
    this.#sampler = new Sampler(request.sampling, seededRandom(request.seed ?? randomInt(2 ** 32)))
    this.#sampler.observe(request.prompt)
  }

  get finished(): boolean {
    return this.#finished
  }

  get startEvent(): GenerationEvent {
    return { type: 'start', promptTokens: this.request.prompt.length }
  }

  /** This sequence's keys and values, made at the first step. */
  get cache(): KvCache {
    this.#cache ??= this.#decoder.createCache(this.request.prompt.length)
    return this.#cache
  }

  /** The tokens to append to the cache in the next step: a chunk of the prompt, then one token at a time. */
  nextTokens(): Int32Array {
    const { prompt } = this.request
    if (this.#fed < prompt.length) return prompt.subarray(this.#fed, this.#fed + PREFILL_CHUNK)
    return Int32Array.of(this.#lastToken)
  }

  /** Takes the logits [vocabSize] that followed nextTokens() and returns what to tell the reader. */
  accept(logits: Float32Array): GenerationEvent[] {
    this.#fed += this.nextTokens().length
    if (this.#fed < this.request.prompt.length) return []
    const token = this.#sampler.next(logits)
    this.#sampler.observe([token])
    this.#lastToken = token
    this.#drawn++
    if (this.#eos.has(token)) return this.#finish('stop', '')
    this.#unreported.push(token)
    const text = this.#stop.push(this.request.text.push(token))
    if (this.#stop.stopped) return this.#finish('stop', text)
    if (this.#drawn >= this.maxTokens) return this.#finish('length', text)
    return text === '' ? [] : [this.#textEvent(text)]
  }

  #textEvent(text: string): GenerationEvent {
    const tokenIds = this.#unreported
    this.#unreported = []
    return { type: 'text', text, tokenIds }
  }

  #finish(reason: 'stop' | 'length', text: string): GenerationEvent[] {
    this.#finished = true
    this.#cache = undefined
    let end = reason
    let rest = text
    if (!this.#stop.stopped) {
      // An unfinished character's replacement text can still complete a stop string.
      rest += this.#stop.push(this.request.text.flush())
      if (this.#stop.stopped) end = 'stop'
      rest += this.#stop.end()
    }
    const finish: GenerationEvent = {
      type: 'finish',
      reason: end,
      promptTokens: this.request.prompt.length,
      completionTokens: this.#drawn,
    }
    return rest === '' && this.#unreported.length === 0 ? [finish] : [this.#textEvent(rest), finish]
  }
}

/** Uniform numbers in [0, 1); all bits of a whole-number seed count. */
function seededRandom(seed: number): () => number {
  return createRandom(seed, Math.floor(seed / 2 ** 32)).next
}

/** How many tokens may be generated: what was asked, clipped to what the context leaves. */
function tokenBudget(maxPositions: number, request: GenerationRequest): number {
  const { prompt, maxTokens } = request
  if (prompt.length === 0) {
    throw new EngineError('invalid', 'empty_prompt', 'The prompt has no tokens; at least one is needed.', {
      param: 'messages',
    })
  }
  if (prompt.length >= maxPositions) {
    throw new EngineError(
      'too_large',
      'context_length_exceeded',
      `The prompt has ${prompt.length} tokens, but this model's context holds ${maxPositions}, of which the answer needs at least one.`,
      { param: 'messages' },
    )
  }
  if (maxTokens === undefined) return maxPositions - prompt.length
  if (!Number.isInteger(maxTokens) || maxTokens < 1) {
    throw new EngineError('invalid', 'invalid_value', `max_tokens is ${maxTokens}; it must be at least 1.`, {
      param: 'max_tokens',
    })
  }
  return Math.min(maxTokens, maxPositions - prompt.length)
}
