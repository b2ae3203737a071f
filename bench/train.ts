/**
 * npm run bench:train [-- --model FOLDER --pairs 2 --length 256 --rows 2]
 *
 * One LoRA step (rank 8, all linear layers) side by side with transformers + PEFT, in turn, in one run: tokens/s and
 * peak memory of both. Needs a Python with torch, transformers and peft (JUDGE_PYTHON).
 */
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { realModelFolder } from './model-folder.ts'

interface Result {
  seconds: number[]
  peakBytes: number
  firstLoss: number
}

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    pairs: { type: 'string', default: '2' },
    steps: { type: 'string', default: '3' },
    rows: { type: 'string', default: '2' },
    length: { type: 'string', default: '256' },
  },
})
const python = process.env.JUDGE_PYTHON ?? 'python3'
const model = realModelFolder(values.model)
const rows = Number(values.rows)
const length = Number(values.length)
const sides = {
  anneal: (args: string[]) =>
    run(process.execPath, ['--import', 'tsx', join(import.meta.dirname, 'train-worker.ts')], args),
  'peft fp32': (args: string[]) => run(python, [join(import.meta.dirname, 'rivals/peft-train.py')], args),
  'peft bf16': (args: string[]) =>
    run(python, [join(import.meta.dirname, 'rivals/peft-train.py')], [...args, '--dtype', 'bfloat16']),
}
const report: Record<string, unknown>[] = []
for (const [trained, from] of [
  ['half', length / 2 - 1],
  ['all', 0],
] as const) {
  const results = Object.fromEntries(Object.keys(sides).map((name) => [name, [] as Result[]]))
  for (let pair = 0; pair < Number(values.pairs); pair++) {
    for (const [name, side] of Object.entries(sides)) {
      const args = ['--rows', values.rows, '--length', values.length, '--steps', values.steps]
      results[name]!.push(side([...args, '--trained-from', String(from)]))
    }
  }
  for (const [name, runs] of Object.entries(results)) {
    const step = median(runs.flatMap(({ seconds }) => seconds))
    const row = {
      trained,
      side: name,
      tokensPerSecond: Math.round((rows * length) / step),
      peakGigabytes: Number((Math.max(...runs.map(({ peakBytes }) => peakBytes)) / 1e9).toFixed(2)),
      firstLoss: Number(runs[0]!.firstLoss.toFixed(4)),
    }
    report.push(row)
    console.log(row)
  }
}
for (const trained of ['half', 'all']) {
  const speed = (side: string) =>
    report.find((row) => row.trained === trained && row.side === side)!.tokensPerSecond as number
  console.log(
    `${trained} of the tokens trained: ${(speed('anneal') / speed('peft fp32')).toFixed(2)} × PEFT fp32,`,
    `${(speed('anneal') / speed('peft bf16')).toFixed(2)} × PEFT bf16`,
  )
}
const machine = { cpu: cpus()[0]!.model, cores: cpus().length, node: process.version }
const file = join(import.meta.dirname, 'results/train.json')
writeFileSync(file, `${JSON.stringify({ machine, rows, length, report }, null, 1)}\n`)

function run(command: string, fixed: string[], args: string[]): Result {
  const output = execFileSync(command, [...fixed, model, ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  return JSON.parse(output.trim().split('\n').at(-1)!) as Result
}

function median(numbers: number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!
}
