import type { EngineError } from '../errors.ts'
import type { DecoderAdapter } from './decoder.ts'
import { EventQueue } from './event-queue.ts'
import type { KvRow } from './kv-group.ts'
import { PromptLookup } from './prompt-lookup.ts'
import type { GenerationEvent, Sequence } from './sequence.ts'

/** A request in the scheduler: its sequence, its tokens so far, and its place in the cache while it runs. */
export interface Job {
  readonly sequence: Sequence
  readonly events: EventQueue<GenerationEvent>
  readonly adapter: DecoderAdapter | undefined
  /** Undefined where nothing is guessed. */
  readonly lookup: PromptLookup | undefined
  /** Prompt and answer; `known` of them are there. */
  readonly tokens: Int32Array
  known: number
  row: KvRow | undefined
  ended: EngineError | Error | 'finished' | undefined
}

/** Tokens that are known but not in the cache yet: one for a sequence that decodes, more for one that prefills. */
export function pending(job: Job): number {
  return job.known - (job.row?.length ?? 0)
}

/**
 * Whether a request that has computed nothing yet had better wait for the other's prompt: at least half of its own is the
 * same, and `atLeast` tokens, and they have one adapter.
 */
export function follows(job: Job, leader: Job, atLeast: number): boolean {
  if (job === leader || job.row?.length !== 0 || job.adapter !== leader.adapter) return false
  const wanted = Math.max(atLeast, job.known / 2)
  if (job.known <= atLeast || leader.known < wanted) return false
  for (let at = 0; at < wanted; at++) if (job.tokens[at] !== leader.tokens[at]) return false
  return true
}

/** A request that has computed nothing. @param promptLookup whether it guesses ahead without a prediction as well. */
export function newJob(sequence: Sequence, promptLookup: boolean): Job {
  const { prompt, adapter, prediction } = sequence.request
  const tokens = new Int32Array(prompt.length + sequence.maxTokens)
  tokens.set(prompt)
  const events = new EventQueue<GenerationEvent>()
  const guesses = promptLookup || prediction !== undefined
  const lookup = guesses ? new PromptLookup(prompt.length, prediction) : undefined
  return { sequence, events, adapter, lookup, tokens, known: prompt.length, row: undefined, ended: undefined }
}

/** Tokens to try, as many as its row and its answer have room for; undefined for none. */
export function guessFor({ lookup, row, tokens, known }: Job): Int32Array | undefined {
  const most = Math.min(tokens.length - known, row!.group.capacity - row!.length) - 1
  const guess = lookup?.guess(tokens.subarray(0, known), most)
  return guess?.length ? guess : undefined
}

/** What the keys and values of its tokens depend on besides them. */
export function adapterKey({ adapter }: Job): string {
  return adapter ? `adapter ${adapter.key}` : 'base'
}
