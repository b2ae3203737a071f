/**
 * npm run bench:serve [-- --model FOLDER --gguf FILE --weights int4 --rounds 2 --only engine|http]
 * npm run bench:serve -- --device webgpu|cuda|cuda:1 [--quick]
 *
 * Serving side by side with llama.cpp in one run, two threads each: LLAMA_SERVER and LLAMA_BENCH name its programs
 * (without them only our numbers are taken). The same client sends both servers the same token prompts. Anneal runs
 * over real HTTP from `bin/anneal.js serve`; the engine alone is measured in a process of its own.
 *
 * Weights are at 4 bits by default, as in the GGUF (Q4_1, with the head at 8 bits on both sides).
 *
 * --device has Anneal compute there; llama.cpp then gets all layers on its GPU, if it was built for one. --quick asks for next
 * to nothing, to see that all of it runs, also on a GPU in software; its results are shown and not kept.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { cpus, loadavg, tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { benchDevice, resultsFile } from './device.ts'
import { realModelFolder } from './model-folder.ts'
import { FULL, type LoadResult, load, QUICK } from './serve-load.ts'

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    gguf: { type: 'string' },
    weights: { type: 'string', default: 'int4' },
    rounds: { type: 'string', default: '2' },
    only: { type: 'string' },
    device: { type: 'string', default: 'cpu' },
    quick: { type: 'boolean', default: false },
  },
})
const sizes = values.quick ? QUICK : FULL
const THREADS = '2'
const root = resolve(import.meta.dirname, '..')
const folder = realModelFolder(values.model)
const model = basename(folder)
const gguf = values.gguf ?? resolve(root, '../shared/models/SmolLM2-135M-Instruct/model-q4_1.gguf')
const { LLAMA_SERVER: llamaServer, LLAMA_BENCH: llamaBench } = process.env
const on = await benchDevice(values.device)
const layers = on.placement.device.kind === 'cpu' ? [] : ['-ngl', '99']
const scratch = mkdtempSync(join(tmpdir(), 'anneal-serve-'))
const children: ChildProcess[] = []
const report: Record<string, unknown> = {
  machine: {
    cpu: cpus()[0]!.model,
    cores: cpus().length,
    node: process.version,
    loadBefore: loadavg()[0],
    ...on.facts,
  },
  weights: values.weights,
}
try {
  const engine = values.only === 'http' ? undefined : engineSpeeds()
  const llama = llamaBench && values.only !== 'http' ? benchSpeeds() : undefined
  show('engine', engine)
  show('llamaBench', llama)
  const http = values.only === 'engine' ? undefined : await serverSpeeds()
  show('ratios', ratios(engine, llama, http))
} finally {
  for (const child of children) child.kill('SIGKILL')
  rmSync(scratch, { recursive: true, force: true })
}
if (values.quick) console.log('machine', JSON.stringify(report.machine))
else {
  const file = join(root, 'bench/results', resultsFile('serve', on))
  writeFileSync(file, `${JSON.stringify(report, null, 1)}\n`)
}

interface EngineSpeeds {
  decode: Record<string, number>
  prefill512: number
  concurrent: Record<string, number>
}

type Loads = Record<'1' | '8', LoadResult>

interface Servers {
  anneal: Loads
  llamaServer?: Loads
}

function engineSpeeds(): EngineSpeeds {
  const worker = join(root, 'bench/serve-engine.ts')
  return JSON.parse(
    run(process.execPath, [
      '--import',
      'tsx',
      worker,
      folder,
      values.weights,
      THREADS,
      on.placement.device.kind,
      ...(values.quick ? ['quick'] : []),
    ]),
  )
}

async function serverSpeeds(): Promise<Servers> {
  const ours = await startAnneal()
  const theirs = llamaServer ? await startLlama(llamaServer) : undefined
  const http = await compareServers(ours.url, theirs)
  show('http', http)
  show('with64IdleConnections', await withIdleConnections(ours.url, sizes.idleConnections))
  show('longPromptsBesideStreams', await longPromptsBesideStreams(ours.url, theirs))
  show('flood', await flood(ours.url, sizes.flood))
  return http
}

function show(name: string, content: unknown): void {
  report[name] = content
  console.log(name, JSON.stringify(content))
}

function run(command: string, args: string[]): string {
  return execFileSync(command, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    cwd: root,
    env: { ...process.env, ...on.placement.env },
  })
}

/** llama-bench's prefill of 512 and decode after each context. */
function benchSpeeds(): Omit<EngineSpeeds, 'concurrent'> {
  const speeds = (args: string[]) =>
    JSON.parse(
      run(llamaBench!, ['-m', gguf, ...layers, '-t', THREADS, '-r', '2', '-o', 'json', ...args]),
    ) as {
      n_depth: number
      avg_ts: number
    }[]
  const [prefill] = speeds(['-p', '512', '-n', '0'])
  const decode = speeds(['-p', '0', '-n', '64', '-d', '128,512,2048'])
  return {
    prefill512: prefill!.avg_ts,
    decode: Object.fromEntries(decode.map(({ n_depth: depth, avg_ts: speed }) => [depth, speed])),
  }
}

async function startAnneal(): Promise<{ url: string }> {
  const port = await freePort()
  symlinkSync(folder, join(scratch, model))
  const config = {
    directories: { models: [scratch], saves: join(scratch, 'saves') },
    device: on.placement.name,
    server: { port },
    chat: { threads: Number(THREADS), weights: values.weights, adapters: 'on demand' },
    logLevel: 'warn',
  }
  const file = join(scratch, 'config.ts')
  writeFileSync(file, `export default ${JSON.stringify(config)}\n`)
  const start = performance.now()
  launch(process.execPath, [join(root, 'bin/anneal.js'), 'serve'], { ANNEAL_CONFIG: file })
  const url = `http://127.0.0.1:${port}`
  await answers(`${url}/health`)
  const listening = performance.now() - start
  const cold = performance.now()
  await load(url, model, 1, 900, sizes)
  show('start', { listeningMs: listening, firstAnswerColdMs: performance.now() - cold })
  return { url }
}

async function startLlama(command: string): Promise<string> {
  const port = await freePort()
  launch(command, [
    '-m',
    gguf,
    ...layers,
    '-t',
    THREADS,
    '-np',
    '8',
    '-c',
    '8192',
    '--port',
    String(port),
    '--no-webui',
  ])
  const url = `http://127.0.0.1:${port}`
  await answers(`${url}/health`)
  return url
}

/** Rounds in turn, best of each. */
async function compareServers(ours: string, theirs: string | undefined): Promise<Servers> {
  const best: { anneal: Partial<Loads>; llamaServer?: Partial<Loads> } = { anneal: {} }
  if (theirs) best.llamaServer = {}
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const concurrent of ['1', '8'] as const) {
      const seed = 10 * round + Number(concurrent)
      keep(best.anneal, concurrent, await load(ours, model, Number(concurrent), seed, sizes))
      if (!theirs) continue
      const options = { extra: { cache_prompt: false } }
      const answer = await load(theirs, model, Number(concurrent), seed, sizes, options)
      keep(best.llamaServer!, concurrent, answer)
    }
  }
  return best as Servers
}

function keep(best: Partial<Loads>, concurrent: '1' | '8', result: LoadResult): void {
  const before = best[concurrent]
  if (!before || before.tokensPerSecond < result.tokensPerSecond) best[concurrent] = result
}

/** Long prompts that come while others' answers are running: how long do those pause? */
async function longPromptsBesideStreams(ours: string, theirs: string | undefined) {
  const long = { ...sizes, promptTokens: sizes.longPrompt }
  const everyMs = 600
  const anneal = await load(ours, model, 6, 800, long, { everyMs })
  if (!theirs) return { anneal }
  const llamaServer = await load(theirs, model, 6, 800, long, { everyMs, extra: { cache_prompt: false } })
  return { anneal, llamaServer }
}

/** The load of 8 while connections are open that say nothing. */
async function withIdleConnections(url: string, count: number): Promise<LoadResult> {
  const { hostname, port } = new URL(url)
  const sockets = Array.from({ length: count }, () => connect(Number(port), hostname).on('error', () => {}))
  try {
    return await load(url, model, 8, 700, sizes)
  } finally {
    for (const socket of sockets) socket.destroy()
  }
}

/** Many short requests at once: how each ended. */
async function flood(url: string, count: number): Promise<Record<string, number>> {
  const ends = await Promise.all(
    Array.from({ length: count }, async () => {
      try {
        const body = JSON.stringify({ model, prompt: [1000, 1001, 1002], max_tokens: 2, temperature: 0 })
        const headers = { 'content-type': 'application/json' }
        const response = await fetch(`${url}/v1/completions`, { method: 'POST', headers, body })
        await response.arrayBuffer()
        return String(response.status)
      } catch {
        return 'reset'
      }
    }),
  )
  const counts: Record<string, number> = {}
  for (const end of ends) counts[end] = (counts[end] ?? 0) + 1
  return counts
}

function ratios(
  engine: EngineSpeeds | undefined,
  llama: Omit<EngineSpeeds, 'concurrent'> | undefined,
  http: Servers | undefined,
) {
  const round = (value: number) => Number(value.toFixed(2))
  const { anneal, llamaServer: theirs } = http ?? {}
  return {
    ...(engine && anneal && { httpOverEngineAt8: round(anneal[8].tokensPerSecond / engine.concurrent[8]!) }),
    ...(anneal &&
      theirs && {
        tokensPerSecondAt8: round(anneal[8].tokensPerSecond / theirs[8].tokensPerSecond),
        tokensPerSecondAt1: round(anneal[1].tokensPerSecond / theirs[1].tokensPerSecond),
        firstTokenAt8: round(anneal[8].firstTokenMs / theirs[8].firstTokenMs),
      }),
    ...(engine &&
      llama && {
        prefill512: round(engine.prefill512 / llama.prefill512),
        decode: Object.fromEntries(
          Object.entries(llama.decode).map(([depth, speed]) => [depth, round(engine.decode[depth]! / speed)]),
        ),
      }),
  }
}

function launch(command: string, args: string[], env: NodeJS.ProcessEnv = {}): void {
  const child = spawn(command, args, { stdio: 'ignore', env: { ...process.env, ...env }, cwd: root })
  children.push(child)
}

async function answers(url: string): Promise<void> {
  for (let attempt = 0; attempt < 3000; attempt++) {
    const response = await fetch(url).catch(() => undefined)
    if (response?.ok) return
    await sleep(10)
  }
  throw new Error(`${url} does not answer`)
}

function freePort(): Promise<number> {
  return new Promise((done) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => done(port))
    })
  })
}
