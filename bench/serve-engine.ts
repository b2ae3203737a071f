/** Anneal's engine alone, for bench:serve. usage: serve-engine.ts FOLDER WEIGHTS THREADS DEVICE [quick] → one JSON object. */
import { Decoder } from '../engine/generate/decoder.ts'
import { DEFAULT_SAMPLING } from '../engine/generate/sampling-params.ts'
import { Scheduler } from '../engine/generate/scheduler.ts'
import type { ServedWeights } from '../engine/generate/served-weights.ts'
import { type Device, parseDevice } from '../engine/onnx/device.ts'
import { FULL, promptTokens, QUICK } from './serve-load.ts'

const [folder, weights, threads, device = 'cpu', quick] = process.argv.slice(2)
const { contexts, stretch, prefill: read, ...sizes } = quick ? QUICK : FULL
const decoder = await Decoder.load(folder!, {
  device: parseDevice(device) as Device,
  threads: Number(threads),
  weights: weights as ServedWeights,
})
await batch(1, 16, 2 * stretch, 0) // warm, as a server is: V8 has compiled what runs for each token
const decode: Record<string, number> = {}
for (const context of contexts) decode[context] = await decodeSpeed(context)
const prefill = Math.max(await prefillSpeed(1), await prefillSpeed(2))
const concurrent: Record<string, number> = {}
for (const count of [1, 8])
  concurrent[count] = await batch(count, sizes.promptTokens, sizes.answerTokens, count)
await decoder.release()
console.log(JSON.stringify({ decode, prefill512: prefill, concurrent }))

/** Tokens per second of all answers together. */
async function batch(count: number, prompt: number, answer: number, seed: number): Promise<number> {
  const scheduler = new Scheduler(decoder, { prefixBytes: 0 })
  const start = performance.now()
  await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      for await (const _ of scheduler.submit(request(prompt, answer, 100 * seed + index)));
    }),
  )
  return (1000 * count * answer) / (performance.now() - start)
}

/** Tokens per second after a context, best of two stretches. */
async function decodeSpeed(context: number): Promise<number> {
  const times: number[] = []
  for await (const event of new Scheduler(decoder, { prefixBytes: 0 }).submit(
    request(context, 2 * stretch + 1, context),
  )) {
    if (event.type === 'text') times.push(performance.now())
  }
  const speeds = [0, stretch].map((from) => (1000 * stretch) / (times[from + stretch]! - times[from]!))
  return Math.max(...speeds)
}

async function prefillSpeed(seed: number): Promise<number> {
  const start = performance.now()
  await decoder.forward(Int32Array.from(promptTokens(read, seed, sizes.distinct)), decoder.createCache(read))
  return (1000 * read) / (performance.now() - start)
}

function request(prompt: number, maxTokens: number, seed: number) {
  return {
    prompt: Int32Array.from(promptTokens(prompt, seed, sizes.distinct)),
    sampling: { ...DEFAULT_SAMPLING, temperature: 0 },
    maxTokens,
    stop: [],
    eosTokenIds: [],
    text: { push: () => '.', flush: () => '' },
  }
}
