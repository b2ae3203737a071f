/** Anneal's side of bench:decode. usage: decode-worker.ts FOLDER CONTEXT TOKENS THREADS → one JSON object. */
import { Decoder } from '../engine/generate/decoder.ts'

const [folder, context, count, threads] = process.argv.slice(2)
const decoder = await Decoder.load(folder!, { threads: Number(threads) })
const cache = decoder.createCache(Number(context) + Number(count) + 1)
const prompt = Int32Array.from({ length: Number(context) }, (_, index) => 1000 + ((index * 37) % 20_000))
const greedy = (logits: Float32Array) =>
  logits.reduce((best, value, id) => (value > logits[best]! ? id : best), 0)

const prefillStart = performance.now()
let token = greedy(await decoder.forward(prompt, cache))
const prefillSeconds = (performance.now() - prefillStart) / 1000
const start = performance.now()
for (let index = 0; index < Number(count); index++)
  token = greedy(await decoder.forward(Int32Array.of(token), cache))
const seconds = (performance.now() - start) / 1000
await decoder.release()
console.log(
  JSON.stringify({
    tokensPerSecond: Number(count) / seconds,
    prefillTokensPerSecond: Number(context) / prefillSeconds,
    peakBytes: process.resourceUsage().maxRSS * 1024,
  }),
)
