/**
 * npm run bench:memory [-- --only NAME]
 *
 * Checks the estimate of a training step's memory (engine/train/estimate.ts) against what the step takes: prints both for
 * several models, methods and batches and writes results/memory.json. Peak resident memory of a process of its own,
 * two steps.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { packedBytesOf, type WeightScheme } from '../engine/packed/layout.ts'
import { baseLinearModules, baseParameterCount, openBase } from '../engine/quant/source.ts'
import { estimateMemory, type ModelSize } from '../engine/train/estimate.ts'
import { realModelFolder } from './model-folder.ts'
import { randomModel, SHAPES } from './random-model.ts'

interface Case {
  model: string
  rows: number
  length: number
  checkpointing: boolean
  scheme?: WeightScheme
  method?: 'full'
  fp16?: boolean
}

const SMALL = 'SmolLM2-135M'
const TINY = 'tinyllama-1.1b'
const HALF = 'llama-0.5b'
const both = (rest: Omit<Case, 'checkpointing'>): Case[] => [
  { ...rest, checkpointing: false },
  { ...rest, checkpointing: true },
]
const CASES: Case[] = [
  ...both({ model: SMALL, rows: 1, length: 128 }),
  ...both({ model: SMALL, rows: 2, length: 256 }),
  ...both({ model: SMALL, rows: 4, length: 512 }),
  ...both({ model: SMALL, rows: 1, length: 1024 }),
  { model: SMALL, rows: 1, length: 2048, checkpointing: true },
  { model: SMALL, rows: 2, length: 256, checkpointing: false, method: 'full' },
  { model: SMALL, rows: 2, length: 256, checkpointing: false, scheme: 'nf4' },
  { model: SMALL, rows: 2, length: 256, checkpointing: false, fp16: true },
  ...both({ model: HALF, rows: 1, length: 512 }),
  ...both({ model: TINY, rows: 1, length: 512 }),
  { model: TINY, rows: 1, length: 1024, checkpointing: true },
  { model: TINY, rows: 1, length: 512, checkpointing: true, scheme: 'nf4' },
  { model: TINY, rows: 1, length: 512, checkpointing: true, scheme: 'int8' },
]

const { values } = parseArgs({ options: { only: { type: 'string' } } })
const results = CASES.filter(({ model }) => !values.only || model === values.only).map((one) => {
  const folder = one.model in SHAPES ? randomModel(one.model) : realModelFolder()
  const estimated = estimate(folder, one)
  const measured = measure(folder, one)
  const row = { ...one, estimated, measured, ratio: Number((estimated / measured).toFixed(2)) }
  console.log(JSON.stringify(row))
  return row
})
const file = join(import.meta.dirname, 'results/memory.json')
const known = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as { model: string }[]) : []
const others = known.filter(({ model }) => !results.some((row) => row.model === model))
writeFileSync(file, `${JSON.stringify([...others, ...results], null, 1)}\n`)

/** LoRA of rank 8 on all linear layers, or all weights; every token trained. */
function estimate(
  folder: string,
  { rows, length, checkpointing, scheme, method, fp16 = false }: Case,
): number {
  const base = openBase(folder)
  const linears = baseLinearModules(base)
  const parameters = baseParameterCount(base)
  const sizes = [...base.weights.entries.values()]
  const weightBytes = sizes.reduce((sum, { byteLength }) => sum + byteLength, 0)
  const linearBytes = linears.reduce(
    (sum, { inFeatures, outFeatures }) => sum + 2 * inFeatures * outFeatures,
    0,
  )
  const adapter = linears.reduce(
    (sum, { inFeatures, outFeatures }) => sum + 8 * (inFeatures + outFeatures),
    0,
  )
  const size: ModelSize = {
    ...base.config,
    parameters,
    weightBytes,
    trainableParameters: method === 'full' ? parameters : adapter,
    ...(scheme ? { packedBytes: weightBytes - linearBytes + packedBytesOf(scheme, linears) } : {}),
  }
  base.weights.close()
  const batch = { rows, length, trained: rows * (length - 1) }
  const config = { gradient_accumulation_steps: 1, stage: 'sft', fp16 } as const
  return estimateMemory(size, config, batch, checkpointing).total
}

function measure(folder: string, { rows, length, checkpointing, scheme, method, fp16 }: Case): number {
  const worker = join(import.meta.dirname, 'train-worker.ts')
  const args = ['--rows', String(rows), '--length', String(length), '--trained-from', '0', '--steps', '1']
  if (checkpointing) args.push('--checkpointing')
  if (scheme) args.push('--scheme', scheme)
  if (method) args.push('--method', method)
  if (fp16) args.push('--fp16')
  const output = execFileSync(process.execPath, ['--import', 'tsx', worker, folder, ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  return (JSON.parse(output.trim().split('\n').at(-1)!) as { peakBytes: number }).peakBytes
}
