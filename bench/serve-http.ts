/**
 * npm run bench:serve-http [-- --model FOLDER --weights int8 --rounds 3]
 *
 * What HTTP and SSE cost over the engine alone: the same answers from the engine in a process of its own and from `anneal
 * serve`, turn by turn, with the processor time that the server's own process took for each token. The reader of the
 * streams shares the machine, as little of it as can be: it counts bytes and parses nothing.
 */
import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { cpus, loadavg, tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { realModelFolder } from './model-folder.ts'
import { ANSWER_TOKENS, PROMPT_TOKENS, promptTokens } from './serve-load.ts'

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    weights: { type: 'string', default: 'int8' },
    rounds: { type: 'string', default: '3' },
    tokens: { type: 'string', default: String(ANSWER_TOKENS) },
  },
})
const root = resolve(import.meta.dirname, '..')
const folder = realModelFolder(values.model)
const model = basename(folder)
const tokens = Number(values.tokens)
const scratch = mkdtempSync(join(tmpdir(), 'anneal-http-'))
symlinkSync(folder, join(scratch, model))
const agent = new Agent({ keepAlive: true, maxSockets: 64 })
const children: ChildProcess[] = []
try {
  const engine = await startEngine()
  const server = await startServer()
  const report: Record<string, unknown> = {
    machine: { cpu: cpus()[0]!.model, cores: cpus().length, node: process.version, load: loadavg()[0] },
    weights: values.weights,
  }
  await Promise.all([engine(1, 0), answers(server.url, 1, 0)]) // warm
  for (const count of [1, 8]) {
    const rounds: Array<{ alone: number; overHttp: number; serverUsPerToken: number }> = []
    for (let round = 1; round <= Number(values.rounds); round++) {
      const alone = await engine(count, round)
      const before = cpuMs(server.pid)
      const start = performance.now()
      await answers(server.url, count, 10 * round + 1)
      const seconds = (performance.now() - start) / 1000
      const serverUsPerToken = (1000 * (cpuMs(server.pid) - before)) / (count * tokens)
      rounds.push({ alone, overHttp: (count * tokens) / seconds, serverUsPerToken })
    }
    const best = (of: (each: (typeof rounds)[number]) => number) => Math.max(...rounds.map(of))
    const [alone, overHttp] = [best((each) => each.alone), best((each) => each.overHttp)]
    const serverUsPerToken = Math.min(...rounds.map((each) => each.serverUsPerToken))
    report[count] = { alone, overHttp, cost: 1 - overHttp / alone, serverUsPerToken }
    console.log(count, JSON.stringify(report[count]), JSON.stringify(rounds))
  }
  writeFileSync(join(root, 'bench/results/serve-http.json'), `${JSON.stringify(report, null, 1)}\n`)
} finally {
  for (const child of children) child.kill('SIGKILL')
  rmSync(scratch, { recursive: true, force: true })
}

/** Tokens per second of `count` answers at once from the engine in its own process. */
async function startEngine(): Promise<(count: number, seed: number) => Promise<number>> {
  const child = fork(
    join(root, 'bench/serve-engine-worker.ts'),
    [folder, values.weights, '2', String(tokens)],
    {
      execArgv: ['--import', 'tsx'],
      env: { ...process.env, PACKED: join(scratch, 'packed') },
    },
  )
  children.push(child)
  await once(child, 'message')
  return async (count, seed) => {
    child.send({ count, seed })
    const [speed] = (await once(child, 'message')) as [number]
    return speed
  }
}

async function startServer(): Promise<{ url: string; pid: number }> {
  const config = {
    directories: { models: [scratch], saves: join(scratch, 'saves') },
    server: { port: 0 },
    chat: { threads: 2, weights: values.weights, adapters: 'on demand', prefixBytes: 0 },
    logLevel: 'info',
  }
  const file = join(scratch, 'config.ts')
  writeFileSync(file, `export default ${JSON.stringify(config)}\n`)
  const child = spawn(process.execPath, [join(root, 'bin/anneal.js'), 'serve'], {
    env: { ...process.env, ANNEAL_CONFIG: file },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  children.push(child)
  for await (const line of createInterface(child.stdout!)) {
    const { url } = JSON.parse(line) as { url?: string }
    if (url === undefined) continue
    child.stdout!.resume()
    return { url, pid: child.pid! }
  }
  throw new Error('the server did not start')
}

async function answers(url: string, count: number, seed: number): Promise<void> {
  await Promise.all(Array.from({ length: count }, (_, index) => answer(url, 100 * seed + index)))
}

function answer(url: string, seed: number): Promise<void> {
  const body = JSON.stringify({
    model,
    prompt: promptTokens(PROMPT_TOKENS, seed),
    max_tokens: tokens,
    temperature: 0,
    ignore_eos: true,
    stream: true,
  })
  return new Promise((done, fail) => {
    const sent = request(`${url}/v1/completions`, {
      method: 'POST',
      agent,
      headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
    })
    sent.on('error', fail).on('response', (response) => {
      if (response.statusCode !== 200) fail(new Error(`answered ${response.statusCode}`))
      response.on('end', done).on('error', fail).resume()
    })
    sent.end(body)
  })
}

/** Processor time that a process has used, all its threads together. */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  return 10 * (Number(fields[11]) + Number(fields[12]))
}
