/**
 * npm run bench:quality [-- --model FOLDER --text FILE --tokens 1024]
 *
 * What quantized serving costs in quality: over a text, the mean Kullback-Leibler divergence of each form's next-token
 * distribution from float32's, and how often both find the same token likeliest.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { Decoder } from '../engine/generate/decoder.ts'
import { SERVED_WEIGHTS, type ServedWeights } from '../engine/generate/served-weights.ts'
import { loadTokenizer } from '../engine/text/tokenizer.ts'
import { realModelFolder } from './model-folder.ts'

const CHUNK = 256
const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    text: { type: 'string' },
    tokens: { type: 'string', default: '1024' },
  },
})
const folder = realModelFolder(values.model)
const textFile = values.text ?? resolve(import.meta.dirname, '../../shared/data/wiki_demo.txt')
const tokens = loadTokenizer(folder).encode(readFileSync(textFile, 'utf8')).subarray(0, Number(values.tokens))
const packedFolder = mkdtempSync(join(tmpdir(), 'anneal-quality-'))
const reference = await chunks('float32')
const rows = []
for (const weights of SERVED_WEIGHTS) {
  if (weights === 'float32') continue
  const row = { weights, ...compare(reference, await chunks(weights)) }
  rows.push(row)
  console.log(row)
}
rmSync(packedFolder, { recursive: true })
const file = join(import.meta.dirname, 'results/quality.json')
const text = { file: textFile.split('/').at(-1), tokens: tokens.length }
writeFileSync(file, `${JSON.stringify({ against: 'float32', text, rows }, null, 1)}\n`)

/** All logits, a chunk of tokens at a time. */
async function chunks(weights: ServedWeights): Promise<Float32Array[]> {
  const decoder = await Decoder.load(folder, { weights, packedFolder })
  const cache = decoder.createCache(tokens.length)
  const logits: Float32Array[] = []
  for (let start = 0; start < tokens.length; start += CHUNK) {
    const part = tokens.subarray(start, start + CHUNK)
    const all = Array.from(part, (_, index) => index)
    const values = await decoder.logitsAt(part, cache, all)
    for (const index of all)
      logits.push(values.slice(index * decoder.vocabSize, (index + 1) * decoder.vocabSize))
  }
  await decoder.release()
  return logits
}

/** KL(p ‖ q) = Σ p·(log p - log q) in nats, averaged over tokens. */
function compare(expected: Float32Array[], actual: Float32Array[]) {
  let divergence = 0
  let same = 0
  for (const [row, p] of expected.entries()) {
    const q = actual[row]!
    const [pTop, pSum] = logSum(p)
    const [qTop, qSum] = logSum(q)
    if (pTop === qTop) same++
    for (let id = 0; id < p.length; id++) {
      const logP = p[id]! - pSum
      divergence += Math.exp(logP) * (logP - (q[id]! - qSum))
    }
  }
  const count = expected.length
  return {
    meanKld: Number((divergence / count).toExponential(2)),
    sameTopToken: Number((same / count).toFixed(4)),
  }
}

/** The likeliest id, and log Σ exp. */
function logSum(logits: Float32Array): [number, number] {
  let top = 0
  for (let id = 1; id < logits.length; id++) if (logits[id]! > logits[top]!) top = id
  const max = logits[top]!
  let sum = 0
  for (const value of logits) sum += Math.exp(value - max)
  return [top, max + Math.log(sum)]
}
