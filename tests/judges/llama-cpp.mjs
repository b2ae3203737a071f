// Loads a GGUF with llama.cpp and prints, for each text, the prompt's token ids and greedy ones: FILE TEXTS COUNT [LORA]
import { getLlama, LlamaLogLevel } from 'node-llama-cpp'

const [file, texts, count, lora] = process.argv.slice(2)
const llama = await getLlama({ gpu: false, build: 'never', maxThreads: 1, logLevel: LlamaLogLevel.error })
const model = await llama.loadModel({ modelPath: file })
const answers = []
for (const text of JSON.parse(texts)) {
  const adapters = lora ? { lora: { adapters: [{ filePath: lora, scale: 1 }] } } : {}
  const context = await model.createContext({ contextSize: 256, threads: 1, ...adapters })
  const prompt = [...model.tokenize(text, true)]
  const ids = []
  for await (const token of context.getSequence().evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    ids.push(token)
    if (ids.length >= Number(count)) break
  }
  answers.push({ prompt, ids })
  await context.dispose()
}
console.log(JSON.stringify(answers))
await llama.dispose()
process.exit(0)
