/**
 * npm run bench:serve-start [-- --model FOLDER --rounds 3]
 *
 * What a user waits for: from `anneal serve` to listening, and from the first request to its first token, with no model in
 * memory. `packing` is the first time ever for this model and width, `cold` every later one. Fastest of the rounds.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { SERVED_WEIGHTS } from '../engine/generate/served-weights.ts'
import { realModelFolder } from './model-folder.ts'

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    weights: { type: 'string', multiple: true, default: [...SERVED_WEIGHTS] },
  },
})
const root = resolve(import.meta.dirname, '..')
const folder = realModelFolder(values.model)
const model = basename(folder)
const scratch = mkdtempSync(join(tmpdir(), 'anneal-start-'))
symlinkSync(folder, join(scratch, model))

/** About 145 tokens, as in bench:serve. */
const PROMPT =
  'Describe the way from the harbour to the lighthouse, the people on it and the weather. '.repeat(7)

try {
  const machine = { cpu: cpus()[0]!.model, cores: cpus().length, node: process.version, load: loadavg()[0] }
  const report: Record<string, unknown> = { machine }
  for (const weights of values.weights) {
    const saves = join(scratch, weights)
    const first = await once(weights, saves)
    const rounds: Start[] = []
    for (let round = 0; round < Number(values.rounds); round++) rounds.push(await once(weights, saves))
    const least = (of: (each: Start) => number) => Math.round(Math.min(...rounds.map(of)))
    report[weights] = {
      listeningMs: least((each) => each.listeningMs),
      firstTokenPackingMs: Math.round(first.firstTokenMs),
      firstTokenColdMs: least((each) => each.firstTokenMs),
    }
    console.log(weights, JSON.stringify(report[weights]))
  }
  writeFileSync(join(root, 'bench/results/serve-start.json'), `${JSON.stringify(report, null, 1)}\n`)
} finally {
  rmSync(scratch, { recursive: true, force: true })
}

interface Start {
  listeningMs: number
  firstTokenMs: number
}

/** One server's life: start, one question, its first piece, the end. */
async function once(weights: string, saves: string): Promise<Start> {
  const config = {
    directories: { models: [scratch], saves },
    server: { port: 0 },
    chat: { threads: 2, weights },
  }
  const file = join(scratch, 'config.ts')
  writeFileSync(file, `export default ${JSON.stringify(config)}\n`)
  const begin = performance.now()
  const server = spawn(process.execPath, [join(root, 'bin/anneal.js'), 'serve'], {
    env: { ...process.env, ANNEAL_CONFIG: file },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    const url = await addressOf(server)
    const listeningMs = performance.now() - begin
    return { listeningMs, firstTokenMs: await firstToken(url) }
  } finally {
    server.kill('SIGTERM')
    await new Promise((done) => server.once('close', done))
  }
}

async function addressOf(server: ChildProcess): Promise<string> {
  for await (const line of createInterface(server.stdout!)) {
    const { url } = JSON.parse(line) as { url?: string }
    if (url === undefined) continue
    server.stdout!.resume()
    return url
  }
  throw new Error('the server did not start')
}

async function firstToken(url: string): Promise<number> {
  const begin = performance.now()
  const answer = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model,
      messages: [{ role: 'user', content: PROMPT }],
      max_tokens: 2,
      temperature: 0,
      stream: true,
    }),
  })
  let text = ''
  for await (const piece of answer.body!.pipeThrough(new TextDecoderStream())) {
    text += piece
    if (/"content":"[^"]/.test(text)) return performance.now() - begin
  }
  throw new Error(`no token came: ${text}`)
}
