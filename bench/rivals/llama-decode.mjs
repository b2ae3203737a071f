#!/usr/bin/env node
// Times greedy decoding with llama.cpp through node-llama-cpp, which is looked for from the folder in LLAMA_MODULES.
// usage: llama-decode.mjs GGUF CONTEXT TOKENS THREADS   → one JSON object: { tokensPerSecond, peakBytes }
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const [file, context, count, threads] = process.argv.slice(2)
const require = createRequire(join(process.env.LLAMA_MODULES ?? process.cwd(), 'package.json'))
const { getLlama } = await import(pathToFileURL(require.resolve('node-llama-cpp')).href)
const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error' })
const model = await llama.loadModel({ modelPath: file })
const session = await model.createContext({
  contextSize: Number(context) + Number(count) + 64,
  threads: Number(threads),
})
const prompt = Array.from({ length: Number(context) }, (_, index) => 1000 + ((index * 37) % 20_000))
let produced = 0
let start = 0
for await (const _ of session.getSequence().evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
  if (produced === 0) start = performance.now()
  if (++produced > Number(count)) break
}
const seconds = (performance.now() - start) / 1000
const peakBytes = process.resourceUsage().maxRSS * 1024
console.log(JSON.stringify({ tokensPerSecond: (produced - 1) / seconds, peakBytes }))
