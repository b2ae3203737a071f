import { randomInt } from 'node:crypto'
import { EngineError } from '../errors.ts'
import { createRandom } from '../random.ts'
import type { Detokenizer } from '../text/detokenizer.ts'
import type { DecoderAdapter } from './decoder.ts'
import { type TokenLogprob, tokenLogprob } from './logprobs.ts'
import { type LogitRules, Sampler } from './sampler.ts'
import { isPlainlyGreedy, type SamplingParams } from './sampling-params.ts'
import { StopMatcher } from './stop-strings.ts'

/** Which tokens may come next, as a grammar sees it; one sequence's own. */
export interface TokenGrammar {
  /** Bit id % 32 of word id / 32 is 1 where a token may come; undefined where every one may. */
  mask(): Int32Array | undefined
  /** Takes the token that was drawn from those allowed. */
  accept(token: number): void
}

export interface Guesses {
  tokens: number
  accepted: number
}

export interface GenerationRequest {
  /** Token ids of the whole prompt, at least one. */
  prompt: Int32Array
  /** What errors call the prompt: the request's field that it came from. */
  promptName?: string
  /** The LoRA adapter to answer with; undefined answers with the base. */
  adapter?: DecoderAdapter
  /** Tokens of what the answer is expected to be; where they come true they cost less. */
  prediction?: Int32Array
  sampling: SamplingParams
  /** Same seed, same text. Undefined draws a fresh one. */
  seed?: number
  /** Tokens to generate at most; clipped to what the context leaves, which is also the default. */
  maxTokens?: number
  /** Tokens before which the answer does not end by itself or by a stop string. */
  minTokens?: number
  /** Added to the logits of single tokens. */
  logitBias?: ReadonlyMap<number, number>
  /** Tell each token's log-probability with this many of the likeliest tokens beside it; undefined tells none. */
  logprobs?: number
  /** What the answer must look like. */
  grammar?: TokenGrammar
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
  /** tokenIds: tokens drawn since the last event of this type; text may lag behind them. logprobs: one for each. */
  | { type: 'text'; text: string; tokenIds?: number[]; logprobs?: TokenLogprob[] }
  /** cachedTokens: how many of the prompt's tokens a prefix cache spared. */
  | {
      type: 'finish'
      reason: 'stop' | 'length'
      promptTokens: number
      completionTokens: number
      cachedTokens: number
      /** Tokens that were guessed ahead and computed, and those of them that came true. */
      guessed?: Guesses
      /** Milliseconds until the request joined the batch; undefined where nobody queues. */
      queuedMs?: number
    }

/**
 * The state of one request: what the logits that follow its tokens mean. It feeds and runs nothing, so a driver may
 * join many sequences into a batch. The driver feeds the prompt, gives the logits after its last token to accept(),
 * then feeds `lastToken` and gives the logits after it, until `finished`.
 */
export class Sequence {
  readonly request: GenerationRequest
  readonly maxTokens: number
  /** Whether only the id of the largest logit matters, so that the driver may call acceptToken() instead of accept(). */
  readonly greedy: boolean
  /** Prompt tokens that the driver found in a prefix cache; told in the usage. */
  cachedTokens = 0
  /** Kept by a driver that guesses tokens ahead. */
  guessed: Guesses | undefined
  readonly #created = performance.now()
  #queuedMs: number | undefined
  readonly #sampler: Sampler
  readonly #stop: StopMatcher
  readonly #eos: ReadonlySet<number>
  readonly #rules: LogitRules | undefined
  #drawn = 0
  #lastToken = -1
  #unreported: number[] = []
  #logprobs: TokenLogprob[] = []
  #finished = false

  /**
   * Checks the request against the context of `maxPositions` tokens.
   * @throws EngineError too_large 'context_length_exceeded'; invalid for an empty prompt, stop or max_tokens below 1.
   */
  constructor(maxPositions: number, request: GenerationRequest) {
    this.request = request
    this.maxTokens = tokenBudget(maxPositions, request)
    this.#rules = rulesOf(request)
    this.greedy =
      isPlainlyGreedy(request.sampling) && this.#rules === undefined && request.logprobs === undefined
    this.#stop = new StopMatcher(request.stop)
    this.#eos = new Set(request.ignoreEos ? [] : request.eosTokenIds)
    this.#sampler = new Sampler(request.sampling, seededRandom(request.seed ?? randomInt(2 ** 32)))
    this.#sampler.observePrompt(request.prompt)
  }

  get finished(): boolean {
    return this.#finished
  }

  /** The token that was drawn last: the next one to feed. */
  get lastToken(): number {
    return this.#lastToken
  }

  /** The driver has begun with it; only the first time counts. */
  joined(): void {
    this.#queuedMs ??= performance.now() - this.#created
  }

  get startEvent(): GenerationEvent {
    return { type: 'start', promptTokens: this.request.prompt.length }
  }

  /** Draws from the logits [vocabSize] that follow all tokens so far and returns what to tell the reader. */
  accept(logits: Float32Array): GenerationEvent[] {
    const { logprobs, grammar, minTokens = 0, eosTokenIds } = this.request
    const rules = this.#rules
    if (rules) {
      rules.mask = grammar?.mask()
      rules.banned = this.#drawn < minTokens ? eosTokenIds : undefined
    }
    const token = this.#sampler.next(logits, rules)
    grammar?.accept(token)
    if (logprobs !== undefined && !this.#eos.has(token)) {
      this.#logprobs.push(tokenLogprob(logits, token, logprobs))
    }
    return this.acceptToken(token)
  }

  /** Takes the next token itself; the driver may choose it only where `greedy` says so. */
  acceptToken(token: number): GenerationEvent[] {
    this.#sampler.observe(token)
    this.#lastToken = token
    this.#drawn++
    if (this.#eos.has(token)) return this.#finish('stop', '')
    this.#unreported.push(token)
    const piece = this.request.text.push(token)
    const text = this.#drawn < (this.request.minTokens ?? 0) ? piece : this.#stop.push(piece)
    if (this.#stop.stopped) return this.#finish('stop', text)
    if (this.#drawn >= this.maxTokens) return this.#finish('length', text)
    return text === '' ? [] : [this.#textEvent(text)]
  }

  #textEvent(text: string): GenerationEvent {
    const tokenIds = this.#unreported
    this.#unreported = []
    if (this.request.logprobs === undefined) return { type: 'text', text, tokenIds }
    const logprobs = this.#logprobs
    this.#logprobs = []
    return { type: 'text', text, tokenIds, logprobs }
  }

  #finish(reason: 'stop' | 'length', text: string): GenerationEvent[] {
    this.#finished = true
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
      cachedTokens: this.cachedTokens,
      ...(this.guessed && { guessed: this.guessed }),
      queuedMs: this.#queuedMs,
    }
    return rest === '' && this.#unreported.length === 0 ? [finish] : [this.#textEvent(rest), finish]
  }
}

/** The rules that change single logits, or undefined where the request has none. */
function rulesOf({ logitBias, grammar, minTokens = 0 }: GenerationRequest): LogitRules | undefined {
  const biased = logitBias !== undefined && logitBias.size > 0
  return biased || grammar || minTokens > 0 ? { bias: biased ? logitBias : undefined } : undefined
}

/** Uniform numbers in [0, 1); all bits of a whole-number seed count. */
function seededRandom(seed: number): () => number {
  return createRandom(seed, Math.floor(seed / 2 ** 32)).next
}

/** How many tokens may be generated: what was asked, clipped to what the context leaves. */
function tokenBudget(maxPositions: number, request: GenerationRequest): number {
  const { prompt, maxTokens, promptName = 'messages' } = request
  if (prompt.length === 0) {
    throw new EngineError('invalid', 'empty_prompt', 'The prompt has no tokens; at least one is needed.', {
      param: promptName,
    })
  }
  if (prompt.length >= maxPositions) {
    throw new EngineError(
      'too_large',
      'context_length_exceeded',
      `The prompt has ${prompt.length} tokens, but this model's context holds ${maxPositions}, of which the answer needs at least one.`,
      { param: promptName },
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
