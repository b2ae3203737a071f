import { setImmediate } from 'node:timers/promises'
import type { EngineError } from '../errors.ts'
import { decodeStep, guessedStep, prefillStep } from './batch.ts'
import type { Decoder, DecoderResult } from './decoder.ts'
import { cancelledError, queueFullError } from './generation.ts'
import { adapterKey, follows, guessFor, type Job, newJob, pending } from './job.ts'
import type { KvGroup } from './kv-group.ts'
import { KvPool } from './kv-pool.ts'
import { PrefillPace } from './prefill-pace.ts'
import { BLOCK_TOKENS, PrefixCache, type Prefixes } from './prefix-cache.ts'
import { type GenerationEvent, type GenerationRequest, Sequence } from './sequence.ts'
import { SlotPrefixes } from './slot-prefixes.ts'

/** Requests that share the batch. */
export const DEFAULT_MAX_RUNNING = 8
/** Requests that wait for a place in it. */
export const DEFAULT_MAX_QUEUE = 64
const DEFAULT_KV_BYTES = 1024 ** 3
/** Prompts of so many tokens are kept for later ones part by part: all at the end would keep running streams waiting. */
const LONG_PROMPT = 512
const DEFAULT_PREFIX_BYTES = 256 * 1024 ** 2
/** Answer tokens that a request gets cache places for when it joins; for more its row moves to a wider group. */
const EXPECTED_ANSWER = 256

export interface SchedulerLimits {
  maxRunning?: number
  maxQueue?: number
  /** Memory for the keys and values of running requests. */
  kvBytes?: number
  /** Memory for those of earlier prompts and answers; 0 keeps none. On a device they stay in `kvBytes`. */
  prefixBytes?: number
  /** Whether a request that is alone guesses tokens ahead, also without a prediction (PromptLookup). */
  promptLookup?: boolean
}

/** What the scheduler needs of a decoder. */
export type BatchDecoder = Pick<Decoder, 'maxPositions' | 'vocabSize' | 'cacheShape' | 'run'> &
  Partial<Pick<Decoder, 'cacheKernels'>>

/**
 * Continuous batching: requests join and leave the running batch at every step. Each turn of the loop admits who fits,
 * computes one chunk of one prompt, then one token for every request that is past its prompt. When the cache's budget
 * runs out, the request that joined last gives its place back and is computed again later.
 */
export class Scheduler {
  /** Longest prompt plus answer: the model's context, or what the cache's budget holds. */
  readonly maxPositions: number
  readonly #decoder: BatchDecoder
  readonly #kvBytes: number
  readonly #pool: KvPool
  readonly #prefixes: Prefixes
  readonly #maxRunning: number
  readonly #maxQueue: number
  readonly #promptLookup: boolean
  readonly #pace = new PrefillPace()
  /** In the order in which they joined. */
  readonly #running: Job[] = []
  readonly #waiting: Job[] = []
  #looping = false
  #turn = 0

  constructor(decoder: BatchDecoder, limits: SchedulerLimits = {}) {
    this.#decoder = decoder
    this.#kvBytes = limits.kvBytes ?? DEFAULT_KV_BYTES
    const { cacheKernels } = decoder
    this.#pool = new KvPool(decoder.cacheShape, this.#kvBytes, cacheKernels)
    const prefixBytes = limits.prefixBytes ?? DEFAULT_PREFIX_BYTES
    const staysInSlots = cacheKernels !== undefined && prefixBytes > 0
    this.#prefixes = staysInSlots ? new SlotPrefixes(this.#pool) : new PrefixCache(this.#pool, prefixBytes)
    this.#maxRunning = limits.maxRunning ?? DEFAULT_MAX_RUNNING
    this.#maxQueue = limits.maxQueue ?? DEFAULT_MAX_QUEUE
    this.#promptLookup = limits.promptLookup ?? false
    this.maxPositions = Math.min(decoder.maxPositions, this.#pool.maxTokens)
  }

  /** Requests being worked on. */
  get running(): number {
    return this.#running.filter((job) => !job.ended).length
  }

  /** Requests in the queue. */
  get waiting(): number {
    return this.#waiting.length
  }

  /** The part of the budget for running requests' keys and values that is in use, 0 to 1. */
  get cacheUsage(): number {
    return this.#pool.usedBytes / this.#kvBytes
  }

  /** Bytes that the caches of running and of earlier requests occupy. */
  get cacheBytes(): number {
    return this.#pool.allocatedBytes + this.#prefixes.byteLength
  }

  /**
   * Checks the request and puts it in line. The events begin with 'start' and end with 'finish', or with an error:
   * cancelled within one step of `signal`'s abort. To stop reading cancels as well.
   * @throws EngineError at once, as Sequence's constructor does, or unavailable 'queue_full'.
   */
  submit(request: GenerationRequest, signal?: AbortSignal): AsyncGenerator<GenerationEvent, void, void> {
    if (signal?.aborted) throw cancelledError()
    const job = newJob(new Sequence(this.maxPositions, request), this.#promptLookup)
    if (this.running + this.waiting >= this.#maxRunning + this.#maxQueue) {
      throw queueFullError(this.#waiting.length)
    }
    this.#waiting.push(job)
    job.events.push(job.sequence.startEvent)
    const cancel = () => this.#end(job, cancelledError())
    signal?.addEventListener('abort', cancel, { once: true })
    void this.#loop()
    return job.events.read(() => {
      signal?.removeEventListener('abort', cancel)
      cancel()
    })
  }

  /** Ends every request with `error`. */
  dropAll(error: EngineError): void {
    for (const job of [...this.#running, ...this.#waiting]) this.#end(job, error)
  }

  async #loop(): Promise<void> {
    if (this.#looping) return
    this.#looping = true
    await setImmediate() // submit() returns before any work begins
    while (this.#running.length + this.#waiting.length > 0) {
      this.#admit()
      await this.#prefill()
      await this.#decode()
      this.#removeEnded()
      await setImmediate() // a run blocks the event loop: let cancels and new requests in
    }
    this.#looping = false
  }

  /** Lets those who waited longest join, as far as places and the cache's budget go. */
  #admit(): void {
    while (this.#waiting.length > 0 && this.#running.length < this.#maxRunning) {
      const job = this.#waiting[0]!
      const { maxTokens, request } = job.sequence
      const expected = job.known + Math.min(request.prompt.length + maxTokens - job.known, EXPECTED_ANSWER)
      const row = this.#pool.acquire(expected, job.known) ?? this.#pool.acquire(job.known + 1, job.known)
      if (!row) return
      this.#waiting.shift()
      this.#running.push(job)
      job.sequence.joined()
      job.row = row
      this.#restore(job)
    }
  }

  /** Takes over what is known of the beginning of a request that has computed nothing, also from one that still runs. */
  #restore(job: Job): void {
    const leader = this.#running.find((other) => pending(other) === 1 && follows(job, other, BLOCK_TOKENS))
    if (leader) this.#keepPrefix(leader)
    const found = this.#prefixes.restore(job.row!, adapterKey(job), job.tokens.subarray(0, job.known))
    if (job.known === job.sequence.request.prompt.length) job.sequence.cachedTokens = found
  }

  /** Computes the next chunk of one prompt. */
  async #prefill(): Promise<void> {
    const job = this.#nextPrefill()
    if (!job) return
    if (job.row!.length === 0) this.#restore(job)
    const others = this.#running.some((each) => pending(each) === 1)
    const count = this.#pace.chunk(pending(job), others)
    await this.#attempt([job], async () => {
      const began = performance.now()
      const result = await this.#decoder.run(prefillStep(job, count))
      this.#pace.measured(count, performance.now() - began)
      if (job.ended) return
      job.row!.group.append(job.row!, result.present, 1, 0, count)
      if (job.known >= LONG_PROMPT) this.#keepPrefix(job)
      if (pending(job) === 0) this.#accept(job, result, 0)
    })
  }

  /**
   * Prompts take turns: one chunk for the one that joined first, one for the one with least left. Those that begin as an
   * earlier one does, such as the choices of one request, wait for what it computes.
   */
  #nextPrefill(): Job | undefined {
    const all = this.#running.filter((job) => !job.ended && pending(job) > 1)
    const prompts = all.filter(
      (job, at) => !all.slice(0, at).some((leader) => follows(job, leader, BLOCK_TOKENS)),
    )
    if (this.#turn++ % 2 === 0) return prompts[0]
    return prompts.reduce<Job | undefined>(
      (least, job) => (least && pending(least) <= pending(job) ? least : job),
      undefined,
    )
  }

  /** Computes one token for each request that is past its prompt, one run for each group of similar lengths. */
  async #decode(): Promise<void> {
    const began = performance.now()
    for (const job of [...this.#running]) if (pending(job) === 1) this.#makeRoom(job)
    for (const group of [...this.#pool.groups]) {
      const jobs = this.#running.filter((job) => !job.ended && job.row?.group === group && pending(job) === 1)
      if (jobs.length > 0) await this.#attempt(jobs, () => this.#decodeNext(group, jobs))
    }
    this.#pace.stepped(performance.now() - began)
  }

  async #decodeNext(group: KvGroup, jobs: readonly Job[]): Promise<void> {
    const [job] = jobs
    const guess = this.#running.length === 1 ? guessFor(job!) : undefined
    await (guess ? this.#decodeAhead(job!, guess) : this.#decodeGroup(group, jobs))
  }

  /** Computes one token, and those behind it as far as the guess comes true. */
  async #decodeAhead(job: Job, guess: Int32Array): Promise<void> {
    const result = await this.#decoder.run(guessedStep(job, guess))
    if (job.ended) return
    const { row, sequence } = job
    sequence.guessed ??= { tokens: 0, accepted: 0 }
    sequence.guessed.tokens += guess.length
    let accepted = 0
    this.#accept(job, result, 0)
    while (!job.ended && guess[accepted] === sequence.lastToken) {
      sequence.guessed.accepted++
      this.#accept(job, result, ++accepted)
    }
    row!.group.append(row!, result.present, 1, 0, 1 + guess.length, 1 + accepted)
    job.lookup!.checked(guess.length, accepted)
  }

  async #decodeGroup(group: KvGroup, jobs: readonly Job[]): Promise<void> {
    const { step, byRow } = decodeStep(group, jobs)
    const result = await this.#decoder.run(step)
    for (const [at, index] of step.rows.entries()) {
      const job = byRow[index]!
      if (job.ended) continue
      group.append(job.row!, result.present, step.batch, index, 1)
      this.#accept(job, result, at)
    }
  }

  /** Gives the logits of row `at` of a result to the job, and its events to the reader. */
  #accept(job: Job, { logits, largest }: DecoderResult, at: number): void {
    const { sequence, events } = job
    const { vocabSize } = this.#decoder
    try {
      const told = logits
        ? sequence.accept(logits.subarray(at * vocabSize, (at + 1) * vocabSize))
        : sequence.acceptToken(Number(largest![at]))
      job.tokens[job.known++] = sequence.lastToken
      for (const event of told) events.push(event)
      if (sequence.finished) this.#end(job)
    } catch (error) {
      this.#end(job, asError(error))
    }
  }

  /** Runs a step; what it throws ends the jobs that took part. */
  async #attempt(jobs: readonly Job[], step: () => Promise<void>): Promise<void> {
    try {
      await step()
    } catch (error) {
      for (const job of jobs) this.#end(job, asError(error))
    }
  }

  /** Finds a place for a request's next token; where the budget has none, those who joined last give way. */
  #makeRoom(job: Job): void {
    while (job.row && !job.ended && !this.#pool.reserve(job.row, job.row.length + 1)) {
      this.#giveWay(this.#running.findLast((each) => each.row !== undefined)!)
    }
  }

  /** Back to the head of the queue; what was drawn stays, its keys and values are computed again. */
  #giveWay(job: Job): void {
    this.#keepPrefix(job)
    this.#releaseRow(job)
    this.#running.splice(this.#running.indexOf(job), 1)
    this.#waiting.unshift(job)
  }

  /** Ends a job's events. Its row is freed between steps, as a run may be reading it. */
  #end(job: Job, error?: Error): void {
    if (job.ended) return
    job.ended = error ?? 'finished'
    if (error) job.events.fail(error)
    else job.events.end()
    remove(this.#waiting, job)
    if (!this.#looping) this.#removeEnded()
  }

  #removeEnded(): void {
    for (const job of this.#running.filter((each) => each.ended)) {
      this.#keepPrefix(job)
      this.#releaseRow(job)
      remove(this.#running, job)
    }
  }

  #keepPrefix(job: Job): void {
    if (job.row) this.#prefixes.store(job.row, adapterKey(job), job.tokens)
  }

  #releaseRow(job: Job): void {
    if (job.row) this.#pool.release(job.row)
    job.row = undefined
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error))
}

function remove<T>(list: T[], item: T): void {
  const at = list.indexOf(item)
  if (at >= 0) list.splice(at, 1)
}
