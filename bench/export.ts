/**
 * npm run bench:export [-- --part rtn|gptq|memory] [--rounds 3] [--samples 128] [--tokens 8192]
 *
 * rtn: Q4_0, and Q4_K_M once, of a model of TinyLlama's shape (1.1 B, random weights) from bfloat16, beside llama-quantize
 *   from F16.
 * gptq: 4 bits, groups of 128, on SmolLM2 with windows of 512 tokens of c4_demo, beside GPTQModel with the same windows, and
 *   what both leave of the model on the first tokens of wiki_demo.txt.
 * memory: peak memory of whole exports with their reports, of TinyLlama's shape and of two layers with a vocabulary of 151,936.
 *
 * Needs llama-quantize (LLAMA_QUANTIZE) and a Python with gptqmodel (JUDGE_PYTHON). A part that is left out keeps its last
 * result in bench/results/export.json.
 */
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { compareModels } from '../engine/export/compare.ts'
import { ggufFileName, writeGguf } from '../engine/export/gguf.ts'
import { openModel } from '../engine/models/index.ts'
import { createRandom } from '../engine/random.ts'
import { loadTokenizer } from '../engine/text/tokenizer.ts'
import type { ExportWork } from './export-worker.ts'
import { GptqFolder } from './gptq-folder.ts'
import { realModelFolder } from './model-folder.ts'
import { randomModel, SHAPES } from './random-model.ts'
import { c4Windows, wikiWindows } from './text-windows.ts'

interface Result {
  seconds: number
  cpuSeconds?: number
  peakBytes?: number
}

const PARTS = ['rtn', 'gptq', 'memory'] as const
type Part = (typeof PARTS)[number]

const { values } = parseArgs({
  options: {
    part: { type: 'string', multiple: true },
    rounds: { type: 'string', default: '3' },
    samples: { type: 'string', default: '128' },
    tokens: { type: 'string', default: '8192' },
    /** GPTQ only: leave the other side out, or ours. */
    side: { type: 'string', multiple: true, default: ['anneal', 'gptqmodel'] },
  },
})
const parts = (values.part ?? PARTS) as Part[]
const python = process.env.JUDGE_PYTHON ?? 'python3'
const quantizer = process.env.LLAMA_QUANTIZE ?? 'llama-quantize'
const resultFile = join(import.meta.dirname, 'results/export.json')
const results: Record<string, unknown> = existsSync(resultFile)
  ? (JSON.parse(readFileSync(resultFile, 'utf8')) as Record<string, unknown>)
  : {}
const scratch = mkdtempSync(join(tmpdir(), 'anneal-export-'))
const load = () => Number(loadavg()[0]!.toFixed(1)) // of others too: ratios of a busy machine say little

function ours(work: Omit<ExportWork, 'output'>): Result {
  const output = join(scratch, 'anneal')
  rmSync(output, { recursive: true, force: true })
  mkdirSync(output)
  const worker = join(import.meta.dirname, 'export-worker.ts')
  return run(process.execPath, ['--import', 'tsx', worker, JSON.stringify({ ...work, output })])
}

/** Runs a program whose last line is its result. */
function run(command: string, args: string[]): Result {
  const text = execFileSync(command, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    maxBuffer: 2 ** 28, // GPTQModel draws its progress on stdout
  })
  return JSON.parse(text.trim().split('\n').at(-1)!) as Result
}

function median(all: readonly Result[]): number {
  return all.map(({ seconds }) => seconds).toSorted((a, b) => a - b)[Math.floor(all.length / 2)]!
}

async function rtn() {
  const model = modelWithTokenizer('tinyllama-1.1b')
  const opened = openModel(model)
  await writeGguf(scratch, { model: opened, type: 'F16' })
  opened.weights.close()
  const f16 = join(scratch, ggufFileName('F16'))
  execFileSync('cat', [f16], { stdio: 'ignore' }) // into the page cache, where the model's own weights are
  const rounds = Number(values.rounds)
  const found: Record<string, unknown> = {}
  for (const [type, times] of [
    ['Q4_0', rounds],
    ['Q4_K_M', Math.min(rounds, 1)],
  ] as const) {
    const sides = { anneal: [] as Result[], llama: [] as Result[] }
    for (let round = 0; round < times; round++) {
      sides.anneal.push(ours({ task: 'gguf', model, method: 'rtn', type }))
      const start = performance.now()
      execFileSync(quantizer, [f16, join(scratch, 'theirs.gguf'), type], { stdio: 'ignore' })
      sides.llama.push({ seconds: (performance.now() - start) / 1000 })
    }
    const timesLlamaQuantize = Number((median(sides.anneal) / median(sides.llama)).toFixed(2))
    found[type] = { ...sides, timesLlamaQuantize }
    console.log(type, found[type])
  }
  return { ...found, load: load() }
}

async function gptq() {
  const model = realModelFolder(undefined)
  const tokenizer = loadTokenizer(model)
  const samples = Number(values.samples)
  const windows = c4Windows(tokenizer, samples, 512)
  const file = writeWindows(windows)
  const before = (results.gptq ?? {}) as Record<string, unknown>
  const found: Record<string, unknown> = { ...before, samples }
  for (const side of values.side!) {
    const output = join(scratch, side)
    const rival = join(import.meta.dirname, 'rivals/gptqmodel-quantize.py')
    const result =
      side === 'anneal'
        ? ours({ task: 'gptq', model, method: 'gptq', windows: file })
        : run(python, [rival, model, output, file])
    console.log(side, result)
    found[side] = { ...result, load: load(), ...(await quality(model, output)) }
    console.log(found[side])
  }
  const [a, b] = ['anneal', 'gptqmodel'].map((side) => found[side] as Result | undefined)
  if (a && b) found.timesGptqModelsSpeed = Number((b.seconds / a.seconds).toFixed(2))
  return found
}

/** What an export leaves of the model, on wiki_demo.txt in windows of 512 tokens. */
async function quality(folder: string, exportFolder: string) {
  const windows = wikiWindows(loadTokenizer(folder), Number(values.tokens), 512)
  const model = openModel(folder)
  const { perplexity, meanKld, sameTop } = await compareModels({
    model,
    exported: new GptqFolder(exportFolder),
    windows,
  })
  model.weights.close()
  return { perplexity, meanKld, sameTop }
}

/** Peak memory beside two layers in float32, which is what passes through memory, and 1 GB. */
async function memory() {
  const rows = []
  for (const [shape, samples] of [
    ['wide-vocabulary', 4],
    ['tinyllama-1.1b', 4],
  ] as const) {
    const model = modelWithTokenizer(shape)
    const random = createRandom(1)
    const { vocabulary, hidden, intermediate, keyValueHeads, heads } = SHAPES[shape]!
    const layerBytes = 4 * hidden * (2 * hidden + (2 * hidden * keyValueHeads) / heads + 3 * intermediate)
    const windows = Array.from({ length: samples }, () =>
      Int32Array.from({ length: 512 }, () => random.nextInt(vocabulary)),
    )
    for (const method of ['rtn', 'gptq'] as const) {
      const { seconds, peakBytes } = ours({ task: 'whole', model, method, windows: writeWindows(windows) })
      const row = { shape, method, seconds, peakBytes, limit: 2 * layerBytes + 2 ** 30 }
      console.log(row)
      rows.push(row)
    }
  }
  return rows
}

/** A random model with a tokenizer, which GGUF wants: the vocabulary is filled up. */
function modelWithTokenizer(shape: string): string {
  const folder = randomModel(shape)
  const tokenizer = resolve(import.meta.dirname, '../data/models/anneal-tiny')
  for (const name of ['tokenizer.json', 'tokenizer_config.json'])
    cpSync(join(tokenizer, name), join(folder, name))
  return folder
}

function writeWindows(windows: readonly Int32Array[]): string {
  const file = join(scratch, 'windows.json')
  writeFileSync(file, JSON.stringify(windows.map((window) => [...window])))
  return file
}

try {
  const measure: Record<Part, () => Promise<unknown>> = { rtn, gptq, memory }
  for (const part of parts) {
    results[part] = await measure[part]()
    results.machine = { cpu: cpus()[0]!.model, cores: cpus().length, node: process.version, load: load() }
    writeFileSync(resultFile, `${JSON.stringify(results, null, 1)}\n`)
    console.log(JSON.stringify(results[part], null, 1))
  }
} finally {
  rmSync(scratch, { recursive: true, force: true })
}
