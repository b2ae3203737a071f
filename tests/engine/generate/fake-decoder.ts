import type { Decoder } from '../../../engine/generate/decoder.ts'
import type { SequenceDecoder } from '../../../engine/generate/feed.ts'
import type { KvCache } from '../../../engine/generate/kv-cache.ts'
import { DEFAULT_SAMPLING } from '../../../engine/generate/sampling-params.ts'
import type { GenerationEvent, GenerationRequest } from '../../../engine/generate/sequence.ts'
import { createDetokenizer } from '../../../engine/text/detokenizer.ts'

/** Ids below are UTF-8 bytes, so that characters span tokens as in a byte-level tokenizer. */
export const EOS = 256
const VOCABULARY = 257

export interface FakeDecoder extends SequenceDecoder {
  /** First prompt byte of each forward call and how many tokens it fed, in order. */
  calls: { name: string; tokens: number }[]
}

/**
 * Answers a prompt, whatever its text, with the bytes of `answers[first character of the prompt]` and then EOS. The
 * length of the prompt is told by its last character, which must be '>' and occur only there.
 */
export function fakeDecoder(answers: Record<string, string>, maxPositions = 1000): FakeDecoder {
  const histories = new WeakMap<object, number[]>()
  const calls: FakeDecoder['calls'] = []
  return {
    calls,
    maxPositions,
    createCache() {
      const cache = {}
      histories.set(cache, [])
      return cache as KvCache
    },
    async forward(tokens, cache) {
      const history = histories.get(cache)!
      history.push(...tokens)
      const name = String.fromCharCode(history[0]!)
      calls.push({ name, tokens: tokens.length })
      const answer = Buffer.from(answers[name] ?? '')
      const position = history.length - 1 - history.indexOf(62)
      const logits = new Float32Array(VOCABULARY).fill(-100)
      logits[answer[position] ?? EOS] = 0
      return logits
    },
  } satisfies Pick<Decoder, 'maxPositions' | 'createCache' | 'forward'> & { calls: unknown }
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
