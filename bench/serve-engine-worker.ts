/** The engine alone, for bench:serve-http: answers { count, seed } with tokens per second. */
import { Decoder } from '../engine/generate/decoder.ts'
import { DEFAULT_SAMPLING } from '../engine/generate/sampling-params.ts'
import { Scheduler } from '../engine/generate/scheduler.ts'
import type { ServedWeights } from '../engine/generate/served-weights.ts'
import { PROMPT_TOKENS, promptTokens } from './serve-load.ts'

const [folder, weights, threads, tokens] = process.argv.slice(2)
const decoder = await Decoder.load(folder!, {
  threads: Number(threads),
  weights: weights as ServedWeights,
  packedFolder: process.env.PACKED,
})
process.on('message', async ({ count, seed }: { count: number; seed: number }) => {
  const scheduler = new Scheduler(decoder, { prefixBytes: 0 })
  const start = performance.now()
  await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const request = {
        prompt: Int32Array.from(promptTokens(PROMPT_TOKENS, 100 * seed + index)),
        sampling: { ...DEFAULT_SAMPLING, temperature: 0 },
        maxTokens: Number(tokens),
        stop: [],
        eosTokenIds: [],
        text: { push: () => '.', flush: () => '' },
      }
      for await (const _ of scheduler.submit(request));
    }),
  )
  process.send!((1000 * count * Number(tokens)) / (performance.now() - start))
})
process.send!('ready')
