// Loads an ONNX export with transformers.js and prints, for each text, the prompt's token ids and greedy ones:
// FOLDER TEXTS COUNT DTYPE
import { basename, dirname } from 'node:path'
import { AutoModelForCausalLM, AutoTokenizer, env } from '@huggingface/transformers'

const [folder, texts, count, dtype] = process.argv.slice(2)
env.allowRemoteModels = false
env.localModelPath = `${dirname(folder)}/`
const name = basename(folder)
const tokenizer = await AutoTokenizer.from_pretrained(name)
const model = await AutoModelForCausalLM.from_pretrained(name, { dtype })
const answers = []
for (const text of JSON.parse(texts)) {
  const inputs = tokenizer(text, { add_special_tokens: false })
  const output = await model.generate({ ...inputs, max_new_tokens: Number(count), do_sample: false })
  const prompt = inputs.input_ids.tolist()[0].map(Number)
  answers.push({ prompt, ids: output.tolist()[0].map(Number).slice(prompt.length) })
}
console.log(JSON.stringify(answers))
