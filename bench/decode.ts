/**
 * npm run bench:decode [-- --model FOLDER --gguf FILE --pairs 2 --tokens 64]
 *
 * Greedy decoding of one stream side by side with llama.cpp on the same weights (ours float32, theirs the 4-bit GGUF
 * that the folder was unpacked from), in turn, in one run. llama.cpp comes from npm's node-llama-cpp: install it
 * anywhere (npm i node-llama-cpp @node-llama-cpp/linux-x64 --omit=optional --ignore-scripts) and name that folder in
 * LLAMA_MODULES.
 */
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { realModelFolder } from './model-folder.ts'

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    gguf: { type: 'string' },
    pairs: { type: 'string', default: '2' },
    tokens: { type: 'string', default: '64' },
  },
})
const THREADS = '2'
const folder = realModelFolder(values.model)
const shared = resolve(import.meta.dirname, '../../shared/models/SmolLM2-135M-Instruct/model-q4_1.gguf')
const gguf = values.gguf ?? shared
const report: Record<string, unknown>[] = []
for (const context of ['128', '512', '2048']) {
  const speeds = { anneal: [] as number[], 'llama.cpp': [] as number[] }
  for (let pair = 0; pair < Number(values.pairs); pair++) {
    const args = [context, values.tokens, THREADS]
    speeds.anneal.push(
      run(['--import', 'tsx', join(import.meta.dirname, 'decode-worker.ts'), folder, ...args]),
    )
    speeds['llama.cpp'].push(run([join(import.meta.dirname, 'rivals/llama-decode.mjs'), gguf, ...args]))
  }
  const [ours, theirs] = [Math.max(...speeds.anneal), Math.max(...speeds['llama.cpp'])]
  const row = {
    context: Number(context),
    annealFloat32: Number(ours.toFixed(1)),
    llamaCppQ4: Number(theirs.toFixed(1)),
    ratio: Number((ours / theirs).toFixed(2)),
  }
  report.push(row)
  console.log(row)
}
const machine = { cpu: cpus()[0]!.model, cores: cpus().length, node: process.version }
const file = join(import.meta.dirname, 'results/decode.json')
writeFileSync(file, `${JSON.stringify({ machine, unit: 'tokens/s, best of the pairs', report }, null, 1)}\n`)

function run(args: string[]): number {
  const output = execFileSync(process.execPath, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  return (JSON.parse(output.trim().split('\n').at(-1)!) as { tokensPerSecond: number }).tokensPerSecond
}
