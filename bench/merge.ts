/**
 * npm run bench:merge [-- --rounds 3]
 *
 * Merging a LoRA adapter (rank 16, all linear layers) into a model of TinyLlama's shape (1.1 B, bfloat16, random weights),
 * side by side in one run with PEFT (load, merge_and_unload, save) and with cp of the base. Ours includes SHA-256 digests
 * of every file and fsync; cp and PEFT do neither. Needs a Python with torch, transformers and peft (JUDGE_PYTHON).
 */
import { execFileSync } from 'node:child_process'
import { closeSync, fsyncSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { writeMergeInputs } from './merge-model.ts'

interface Result {
  seconds: number
  writtenAfter?: number
  cpuSeconds?: number
  peakBytes?: number
}

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '3' }, 'without-peft': { type: 'boolean' } },
})
const python = process.env.JUDGE_PYTHON ?? 'python3'
const scratch = mkdtempSync(join(tmpdir(), 'anneal-merge-'))
const output = join(scratch, 'out')

function run(command: string, args: string[]): Result {
  const text = execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  return JSON.parse(text.trim().split('\n').at(-1)!) as Result
}

function copy(base: string, durable: boolean): Result {
  const start = performance.now()
  execFileSync('cp', ['-r', base, output])
  if (durable) {
    const descriptor = openSync(join(output, 'model.safetensors'), 'r+')
    fsyncSync(descriptor)
    closeSync(descriptor)
  }
  return { seconds: (performance.now() - start) / 1000 }
}

try {
  const { base, adapter, parameters } = writeMergeInputs(scratch)
  const sides: Record<string, () => Result> = {
    anneal: () =>
      run(process.execPath, [
        '--import',
        'tsx',
        join(import.meta.dirname, 'merge-worker.ts'),
        base,
        adapter,
        output,
      ]),
    cp: () => copy(base, false),
    'cp + fsync': () => copy(base, true),
    ...(values['without-peft']
      ? {}
      : {
          peft: () => run(python, [join(import.meta.dirname, 'rivals/peft-merge.py'), base, adapter, output]),
        }),
  }
  const results: Record<string, Result[]> = {}
  execFileSync('cat', [join(base, 'model.safetensors')], { stdio: 'ignore' }) // into the page cache, for all alike
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [name, side] of Object.entries(sides)) {
      results[name] = [...(results[name] ?? []), side()]
      rmSync(output, { recursive: true })
    }
  }
  const median = (name: string, field: keyof Result) =>
    (results[name] ?? []).map((result) => result[field] ?? 0).toSorted((a, b) => a - b)[
      Math.floor((results[name]?.length ?? 0) / 2)
    ] ?? 0
  const report = Object.keys(sides).map((side) => ({
    side,
    seconds: Number(median(side, 'seconds').toFixed(2)),
    writtenAfter: Number(median(side, 'writtenAfter').toFixed(2)),
    cpuSeconds: Number(median(side, 'cpuSeconds').toFixed(2)),
    peakGigabytes: Number((median(side, 'peakBytes') / 1e9).toFixed(2)),
  }))
  console.table(report)
  const ratio = (side: string) => Number((median(side, 'seconds') / median('anneal', 'seconds')).toFixed(2))
  const ratios = { cp: ratio('cp'), cpAndFsync: ratio('cp + fsync'), peft: ratio('peft') }
  console.log(
    `anneal's throughput: ${ratios.cp} of cp's, ${ratios.cpAndFsync} of cp's with fsync, ${ratios.peft} × PEFT's`,
  )
  const load = Number(loadavg()[0]!.toFixed(1)) // of others too: ratios of a busy machine say little
  const machine = { cpu: cpus()[0]!.model, cores: cpus().length, node: process.version, load }
  const file = join(import.meta.dirname, 'results/merge.json')
  writeFileSync(file, `${JSON.stringify({ machine, parameters, rank: 16, report, ratios }, null, 1)}\n`)
} finally {
  rmSync(scratch, { recursive: true, force: true })
}
