// Loads a GGUF with llama.cpp and writes, for each text of a reference.json, its tokens, whether a text begins with bos,
// every position's log-probabilities, and how
// near its greedy tokens are to the reference's: FILE REFERENCE OUTPUT
import { readFileSync, writeFileSync } from 'node:fs'
import { getLlama, LlamaLogLevel } from 'node-llama-cpp'

const [file, reference, output] = process.argv.slice(2)
const llama = await getLlama({ gpu: false, build: 'never', maxThreads: 1, logLevel: LlamaLogLevel.error })
const model = await llama.loadModel({ modelPath: file, useMmap: true })
const options = { temperature: 1, topK: 0, topP: 1, minP: 0 }
const texts = []
for (const { text, ids, greedy } of JSON.parse(readFileSync(reference, 'utf8')).texts) {
  const context = await model.createContext({
    contextSize: Math.min(256, model.trainContextSize),
    threads: 1,
  })
  const given = [...ids, ...greedy.slice(0, -1)]
  const inputs = given.map((token) => [token, { generateNext: { logits: true, options } }])
  const results = await context.getSequence().controlledEvaluate(inputs)
  const rows = results.map(({ next }) => {
    const logits = Float64Array.from({ length: next.logits.size })
    for (const [token, logit] of next.logits) logits[token] = logit
    const most = logits.reduce((a, b) => Math.max(a, b))
    const sum = logits.reduce((total, logit) => total + Math.exp(logit - most), 0)
    return [...logits].map((logit) => Number((logit - most - Math.log(sum)).toFixed(5)))
  })
  // How far the reference's greedy token lies below the most likely one.
  const margins = greedy.map((token, i) => {
    const row = rows[ids.length - 1 + i]
    return Math.max(...row) - row[token]
  })
  texts.push({
    ids: [...model.tokenize(text, true)],
    logProbabilities: rows.slice(0, ids.length),
    margins,
  })
  await context.dispose()
}
writeFileSync(output, JSON.stringify({ bos: model.tokens.shouldPrependBosToken, texts }))
await llama.dispose()
process.exit(0)
