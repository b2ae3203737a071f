import type { PastFeeds } from '../../../engine/generate/decoder.ts'
import { DEFAULT_SAMPLING } from '../../../engine/generate/sampling-params.ts'
import { type BatchDecoder, Scheduler } from '../../../engine/generate/scheduler.ts'
import type { GenerationEvent, GenerationRequest } from '../../../engine/generate/sequence.ts'
import { createDetokenizer } from '../../../engine/text/detokenizer.ts'

/** Ids below are UTF-8 bytes, so that characters span tokens as in a byte-level tokenizer. */
export const EOS = 256
const VOCABULARY = 257

export interface FakeDecoder extends BatchDecoder {
  /** First prompt byte of each sequence in each run and how many tokens it fed, in order. */
  calls: { name: string; tokens: number }[]
  /** The names of the sequences in each run. */
  runs: string[]
}

/**
 * Answers a prompt, whatever its text, with the bytes of `answers[first character of the prompt]` and then EOS. The
 * length of the prompt is told by its last character, which must be '>' and occur only there. Its keys are the tokens
 * themselves, so it answers wrongly when the cache is not kept as it should be.
 */
export function fakeDecoder(answers: Record<string, string>, maxPositions = 1000): FakeDecoder {
  const calls: FakeDecoder['calls'] = []
  const runs: string[] = []
  return {
    calls,
    runs,
    maxPositions,
    vocabSize: VOCABULARY,
    cacheShape: { layers: 1, keyValueHeads: 1, headDim: 1 },
    async run({ batch, seq, tokens, rows, past, want }) {
      const names: string[] = []
      const logits = new Float32Array(rows.length * VOCABULARY).fill(-100)
      for (const [at, row] of rows.entries()) {
        const sequence = Math.floor(row / seq)
        const fed = Array.from(tokens.subarray(sequence * seq, row + 1), Number)
        const history = [...pastTokens(past, sequence), ...fed]
        const name = String.fromCharCode(history[0]!)
        names.push(name)
        calls.push({ name, tokens: seq })
        const answer = Buffer.from(answers[name] ?? '')
        logits[at * VOCABULARY + (answer[history.length - 1 - history.indexOf(62)] ?? EOS)] = 0
      }
      runs.push(names.join(''))
      const keys = Array.from(tokens, Number)
      const present = Float32Array.from([...keys, ...new Array(batch * seq).fill(0)])
      return want === 'logits'
        ? { logits, largest: undefined, present }
        : { logits: undefined, largest: largestOf(logits), present }
    },
  }
}

function pastTokens(past: PastFeeds, sequence: number): number[] {
  if ('cache' in past) throw new Error('the fake decoder has no device')
  const { tensors, mask } = past
  const places = mask.dims[4]!
  const keys = (tensors['past_key.0']!.data as Float32Array).subarray(sequence * places)
  const length = (mask.data as Float32Array)
    .subarray(sequence * places, (sequence + 1) * places)
    .reduce((count, value) => count + (value === 0 ? 1 : 0), 0)
  return Array.from(keys.subarray(0, length))
}

function largestOf(logits: Float32Array): BigInt64Array {
  const ids: bigint[] = []
  for (let start = 0; start < logits.length; start += VOCABULARY) {
    ids.push(BigInt(logits.subarray(start, start + VOCABULARY).indexOf(0)))
  }
  return BigInt64Array.from(ids)
}

/** One request alone with the decoder. */
export async function* generate(decoder: BatchDecoder, request: GenerationRequest, signal?: AbortSignal) {
  yield* new Scheduler(decoder, { maxRunning: 1, prefixBytes: 0 }).submit(request, signal)
}

/** A greedy request for `prompt` over the fake decoder's bytes. */
export function fakeRequest(prompt: string, more: Partial<GenerationRequest> = {}): GenerationRequest {
  const tokenizer = { decode: (ids: ArrayLike<number>) => Buffer.from(Array.from(ids)).toString() }
  return {
    prompt: Int32Array.from(Buffer.from(prompt)),
    sampling: { ...DEFAULT_SAMPLING, temperature: 0 },
    stop: [],
    eosTokenIds: [EOS],
    text: createDetokenizer(tokenizer),
    ...more,
  }
}

export async function collect(events: AsyncIterable<GenerationEvent>): Promise<GenerationEvent[]> {
  const all: GenerationEvent[] = []
  for await (const event of events) all.push(event)
  return all
}

export function textOf(events: readonly GenerationEvent[]): string {
  return events.map((event) => (event.type === 'text' ? event.text : '')).join('')
}
