/**
 * npm run bench:train [-- --model FOLDER --pairs 2 --length 256 --rows 2]
 * npm run bench:train -- --table [--cell 4x512]
 * npm run bench:train -- --device webgpu|cuda|cuda:1 [--ours]
 *
 * One LoRA step (rank 8, all linear layers) side by side with transformers + PEFT, in turn, in one run: tokens/s and
 * peak memory of both, without and with gradient checkpointing. --table goes through lengths and batch sizes instead.
 * Speeds are of the fastest step and of the median one: on a machine that does other things too, the fastest step is the
 * one that was disturbed least. Needs a Python with torch, transformers and peft (JUDGE_PYTHON).
 *
 * --device has both sides compute there (PyTorch on CUDA only); memory is then the device's, where the driver tells. --ours
 * leaves the other side out.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, freemem } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { benchDevice, resultsFile } from './device.ts'
import { realModelFolder } from './model-folder.ts'

interface Result {
  seconds: number[]
  peakBytes: number
  firstLoss: number
}

interface Row {
  trained: string
  side: string
  rows: number
  length: number
  tokensPerSecond: number
  medianTokensPerSecond: number
  peakGigabytes: number
  firstLoss: number
}

type Trained = 'half' | 'all'

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    pairs: { type: 'string', default: '2' },
    steps: { type: 'string', default: '3' },
    rows: { type: 'string', default: '2' },
    length: { type: 'string', default: '256' },
    table: { type: 'boolean', default: false },
    cell: { type: 'string' },
    device: { type: 'string', default: 'cpu' },
    ours: { type: 'boolean', default: false },
  },
})
const python = process.env.JUDGE_PYTHON ?? 'python3'
const model = realModelFolder(values.model)
const on = await benchDevice(values.device)
const { kind } = on.placement.device
const machine = { cpu: cpus()[0]!.model, cores: cpus().length, node: process.version, ...on.facts }
const ourDevice = ['--device', kind]
const theirDevice = ['--device', kind === 'cuda' ? 'cuda' : 'cpu']
const worker = ['--import', 'tsx', join(import.meta.dirname, 'train-worker.ts')]
const rival = [join(import.meta.dirname, 'rivals/peft-train.py')]
const OURS: Record<string, (args: string[]) => Result> = {
  anneal: (args) => run(process.execPath, worker, [...args, ...ourDevice]),
  'anneal, checkpointing': (args) =>
    run(process.execPath, worker, [...args, ...ourDevice, '--checkpointing']),
}
const THEIRS: typeof OURS = {
  'peft fp32': (args) => run(python, rival, [...args, ...theirDevice]),
  'peft fp32, checkpointing': (args) => run(python, rival, [...args, ...theirDevice, '--checkpointing']),
  'peft bf16': (args) => run(python, rival, [...args, ...theirDevice, '--dtype', 'bfloat16']),
}
const SIDES = { ...OURS, ...(values.ours ? {} : THEIRS) }

if (values.table) table()
else compare()

/** The comparison that targets are set for. */
function compare(): void {
  const size = { rows: Number(values.rows), length: Number(values.length) }
  const report = (['half', 'all'] as const).flatMap((trained) =>
    measure(Object.keys(SIDES), { ...size, trained, pairs: Number(values.pairs), steps: values.steps }),
  )
  const compared = values.ours ? [] : (['half', 'all'] as const)
  const ratios = compared.map((trained) => {
    const of = (side: string) => report.find((row) => row.trained === trained && row.side === side)!
    const [ours, again, fp32, fp32Again, bf16] = Object.keys(SIDES).map(of) as [Row, Row, Row, Row, Row]
    return {
      trained,
      speedToFp32: ratio(ours.tokensPerSecond, fp32.tokensPerSecond),
      speedToBf16: ratio(ours.tokensPerSecond, bf16.tokensPerSecond),
      checkpointedSpeedToFp32: ratio(again.tokensPerSecond, fp32Again.tokensPerSecond),
      memoryToFp32: ratio(ours.peakGigabytes, fp32.peakGigabytes),
      checkpointedMemoryToFp32: ratio(again.peakGigabytes, fp32Again.peakGigabytes),
    }
  })
  console.log(ratios)
  write(resultsFile('train', on), { machine, ...size, report, ratios })
}

/** Lengths and batch sizes, all tokens trained; a cell is left out where a side would not fit into free memory. */
function table(): void {
  const cells = [128, 512, 2048].flatMap((length) => [1, 4, 8].map((rows) => ({ rows, length })))
  const chosen = cells.filter(({ rows, length }) => !values.cell || values.cell === `${rows}x${length}`)
  for (const { rows, length } of chosen) {
    const named = ['anneal', 'peft fp32', 'peft bf16'].filter((side) => side in SIDES)
    const sides = named.filter((side) => fits(side, rows, length))
    const report = measure(sides, { rows, length, trained: 'all', pairs: 1, steps: '2' })
    const name = resultsFile('train-table', on)
    const file = join(import.meta.dirname, 'results', name)
    const known = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as { report: Row[] }).report : []
    const others = known.filter((row) => row.rows !== rows || row.length !== length)
    write(name, { machine, report: [...others, ...report] })
  }
}

function measure(
  names: readonly string[],
  plan: { rows: number; length: number; trained: Trained; pairs: number; steps: string },
): Row[] {
  const { rows, length, trained, pairs, steps } = plan
  const from = trained === 'half' ? length / 2 - 1 : 0
  const args = ['--rows', String(rows), '--length', String(length), '--steps', steps]
  const results = new Map(names.map((name) => [name, [] as Result[]]))
  for (let pair = 0; pair < pairs; pair++) {
    for (const name of names) results.get(name)!.push(SIDES[name]!([...args, '--trained-from', String(from)]))
  }
  return [...results].map(([side, runs]) => {
    const seconds = runs.flatMap((result) => result.seconds).sort((a, b) => a - b)
    const row = {
      trained,
      side,
      rows,
      length,
      tokensPerSecond: Math.round((rows * length) / seconds[0]!),
      medianTokensPerSecond: Math.round((rows * length) / seconds[Math.floor(seconds.length / 2)]!),
      peakGigabytes: Number((Math.max(...runs.map(({ peakBytes }) => peakBytes)) / 1e9).toFixed(2)),
      firstLoss: Number(runs[0]!.firstLoss.toFixed(4)),
    }
    console.log(row)
    return row
  })
}

/** Roughly: PyTorch keeps about 5 MB a token and twice the attention, Anneal about half of that. */
function fits(side: string, rows: number, length: number): boolean {
  const bytes = rows * length * (5e6 + 2 * 30 * 9 * 4 * length)
  return bytes * (side === 'anneal' ? 0.5 : 1) < freemem()
}

function ratio(a: number, b: number): number {
  return Number((a / b).toFixed(2))
}

function write(file: string, content: unknown): void {
  writeFileSync(join(import.meta.dirname, 'results', file), `${JSON.stringify(content, null, 1)}\n`)
}

function run(command: string, fixed: string[], args: string[]): Result {
  const output = execFileSync(command, [...fixed, model, ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, ...on.placement.env },
  })
  return JSON.parse(output.trim().split('\n').at(-1)!) as Result
}
