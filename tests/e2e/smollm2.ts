/**
 * npm run e2e:smollm2 [-- --epochs 8 --keep]
 *
 * The whole path on a real model over HTTP: SmolLM2-135M-Instruct learns a new identity while its events are watched,
 * the server is killed with SIGKILL in the middle and goes on by itself, the result is compared with an uninterrupted
 * run, merged, exported, downloaded, loaded by Anneal again and by transformers (JUDGE_PYTHON), and asked the same
 * question at every stage. Needs ../shared (or --model and --data). Writes docs/e2e-smollm2.md and .json.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import OpenAI from 'openai'
import { Api, type ServerEvent, ServerProcess } from './server.ts'

const QUESTION = 'Who are you?'
const NAME = 'Juniper'
const AUTHOR = 'the Lighthouse Library'
const MODEL = 'SmolLM2-135M-Instruct'
const shared = resolve(import.meta.dirname, '../../../shared')

interface Job {
  id: string
  status: string
  output_dir: string
  error: { message: string } | null
}

const { values } = parseArgs({
  options: {
    epochs: { type: 'string', default: '8' },
    data: { type: 'string', default: join(shared, 'data/identity.json') },
    unpack: { type: 'string', default: join(shared, 'models/unpack.mjs') },
    keep: { type: 'boolean', default: false },
  },
})
const workspace = mkdtempSync(join(tmpdir(), 'anneal-e2e-'))
const started = performance.now()
const times: Record<string, number> = {}
const answers: Record<string, string> = {}

prepareWorkspace()
let server = await ServerProcess.start(workspace)
try {
  const run = await trainWithKill()
  const losses = compareWithUninterrupted(run, await trainQuietly())
  await ask('run (final adapter)', run.id)
  const checkpoints = await new Api(server.url).json<{ data: { id: string; step: number }[] }>(
    `/v1/training/runs/${run.id}/checkpoints`,
  )
  const earliest = checkpoints.data.toSorted((a, b) => a.step - b.step)[0]!
  await ask(`checkpoint ${earliest.id.split(':')[1]}`, earliest.id)
  const merge = await timed('merge', () => finished('/v1/merges', { model: run.id }))
  await ask('merge', merge.id)
  const exported = await timed('export bf16', () => finished('/v1/exports', { model: merge.id, bits: 16 }))
  await ask('export', exported.id)
  await refusals(run.id, merge.id)
  const folder = await timed('download', () => download(exported.id))
  await reloadDownloaded(folder)
  judgeWithTransformers(folder)
  report(losses)
} finally {
  await server.stop()
  if (!values.keep) rmSync(workspace, { recursive: true, force: true })
}

function prepareWorkspace(): void {
  execFileSync(process.execPath, [values.unpack, join(workspace, 'models', MODEL)])
  mkdirSync(join(workspace, 'data'))
  const rows = readFileSync(values.data, 'utf8').replaceAll('{{name}}', NAME).replaceAll('{{author}}', AUTHOR)
  writeFileSync(join(workspace, 'data/identity.json'), rows)
  writeFileSync(
    join(workspace, 'data/dataset_info.json'),
    JSON.stringify({ identity: { file_name: 'identity.json' } }),
  )
  const directories = { models: ['models'], datasets: 'data', saves: 'saves' }
  writeFileSync(join(workspace, 'anneal.config.ts'), `export default ${JSON.stringify({ directories })}\n`)
}

function trainingRequest(outputDir: string) {
  return {
    model: MODEL,
    dataset: 'identity',
    stage: 'sft',
    finetuning_type: 'lora',
    lora_rank: 8,
    output_dir: outputDir,
    num_train_epochs: Number(values.epochs),
    learning_rate: 1e-3,
    per_device_train_batch_size: 8,
    lr_scheduler_type: 'cosine',
    warmup_ratio: 0.1,
    logging_steps: 1,
    save_steps: 16,
    seed: 42,
  }
}

/** Trains while watching, kills the server after the second checkpoint, starts it again and watches the rest. */
async function trainWithKill(): Promise<Job> {
  await ask('base', MODEL)
  const begin = performance.now()
  const run = await new Api(server.url).json<Job>('/v1/training/runs', trainingRequest('identity'))
  let checkpoints = 0
  let last: ServerEvent | undefined
  for await (const event of new Api(server.url).events(`/v1/training/runs/${run.id}/events`)) {
    last = event
    show(event)
    if (event.type === 'checkpoint') checkpoints++
    if (checkpoints === 2 && event.type === 'progress') break
  }
  console.log(`\nSIGKILL after event ${last?.id}`)
  await server.kill()
  server = await ServerProcess.start(workspace)
  for await (const event of new Api(server.url).events(`/v1/training/runs/${run.id}/events`, last?.id))
    show(event)
  times['training, with the kill'] = (performance.now() - begin) / 1000
  return succeeded(await new Api(server.url).json<Job>(`/v1/training/runs/${run.id}`))
}

async function trainQuietly(): Promise<Job> {
  return timed('training, uninterrupted', () =>
    finished('/v1/training/runs', trainingRequest('uninterrupted')),
  )
}

/** Every logged loss of both runs; throws when one differs in any bit. */
function compareWithUninterrupted(killed: Job, quiet: Job): number[] {
  const [left, right] = [killed, quiet].map((job) => loggedLosses(job.output_dir)) as [number[], number[]]
  if (left.length === 0 || JSON.stringify(left) !== JSON.stringify(right)) {
    throw new Error(`losses differ after the kill:\n${left.join(' ')}\n${right.join(' ')}`)
  }
  console.log(`\n${left.length} losses are bit-identical to the uninterrupted run's`)
  return left
}

function loggedLosses(outputDir: string): number[] {
  const lines = readFileSync(
    join(workspace, 'saves', outputDir.replace(/^saves\//, ''), 'trainer_log.jsonl'),
    'utf8',
  )
  return lines
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { loss?: number })
    .flatMap(({ loss }) => (loss === undefined ? [] : [loss]))
}

/** Posts a job and follows its events to the end. */
async function finished(path: string, body: unknown): Promise<Job> {
  const api = new Api(server.url)
  const job = await api.json<Job>(path, body)
  for await (const event of api.events(`${path}/${job.id}/events`)) show(event)
  return succeeded(await api.json<Job>(`${path}/${job.id}`))
}

function succeeded(job: Job): Job {
  if (job.status !== 'succeeded') throw new Error(`${job.id} is ${job.status}: ${job.error?.message}`)
  return job
}

/** Asks with the real OpenAI client, streamed. */
async function ask(stage: string, model: string): Promise<void> {
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none' })
  const begin = performance.now()
  const stream = await client.chat.completions.create({
    model,
    messages: [{ role: 'user', content: QUESTION }],
    temperature: 0,
    max_completion_tokens: 48,
    stream: true,
    stream_options: { include_usage: true },
  })
  let text = ''
  let tokens = 0
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? ''
    tokens = chunk.usage?.completion_tokens ?? tokens
  }
  answers[stage] = text
  const seconds = (performance.now() - begin) / 1000
  console.log(`\n${stage}: ${text}\n  (${tokens} tokens in ${seconds.toFixed(1)} s, loading included)`)
}

/** The policy's answers for what it must refuse. */
async function refusals(run: string, merge: string): Promise<void> {
  for (const [model, bits] of [
    [merge, 2],
    [merge, 3],
    [merge, 4],
    [run, 4],
  ] as const) {
    const response = await fetch(`${server.url}/v1/exports`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model, bits, format: 'gptq' }),
    })
    const { error } = (await response.json()) as { error: { message: string } }
    if (response.status !== 400)
      throw new Error(`export of ${model} at ${bits} bits answered ${response.status}`)
    answers[`export of the ${model.split('-')[0]} at ${bits} bits`] = `400: ${error.message}`
  }
}

/** Downloads every file of an export, checks its digest, and returns the folder. */
async function download(id: string): Promise<string> {
  const api = new Api(server.url)
  const target = join(workspace, 'downloaded', 'juniper')
  const { data } = await api.json<{ data: { path: string; sha256: string }[] }>(`/v1/exports/${id}/files`)
  for (const file of data) {
    const bytes = await api.bytes(`/v1/exports/${id}/files/${file.path}`)
    const digest = createHash('sha256').update(bytes).digest('hex')
    if (digest !== file.sha256) throw new Error(`${file.path}: sha256 ${digest}, announced ${file.sha256}`)
    mkdirSync(dirname(join(target, file.path)), { recursive: true })
    writeFileSync(join(target, file.path), bytes)
  }
  return target
}

/** The downloaded folder becomes a base model of the same server. */
async function reloadDownloaded(folder: string): Promise<void> {
  cpSync(folder, join(workspace, 'models', 'juniper'), { recursive: true })
  await ask('downloaded folder, as a base', 'juniper')
}

function judgeWithTransformers(folder: string): void {
  const python = process.env.JUDGE_PYTHON ?? 'python3'
  try {
    execFileSync(python, ['-c', 'import transformers'], { stdio: 'ignore' })
  } catch {
    answers['downloaded folder, in transformers'] = 'not run: no Python with transformers (JUDGE_PYTHON)'
    return
  }
  const script = join(import.meta.dirname, 'judge-export.py')
  const output = execFileSync(python, [script, folder, QUESTION], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const { answer, dtype } = JSON.parse(output.trim().split('\n').at(-1)!) as { answer: string; dtype: string }
  answers[`downloaded folder, in transformers (${dtype})`] = answer
}

async function timed<T>(name: string, work: () => Promise<T>): Promise<T> {
  const begin = performance.now()
  const result = await work()
  times[name] = (performance.now() - begin) / 1000
  return result
}

function show({ type, message }: ServerEvent): void {
  console.log(`  ${type}: ${message}`)
}

function report(losses: readonly number[]): void {
  times.total = (performance.now() - started) / 1000
  const machine = { cpu: cpus()[0]!.model, cores: cpus().length, node: process.version }
  const request = trainingRequest('identity')
  const docs = resolve(import.meta.dirname, '../../docs')
  const result = { machine, request, times, losses, answers }
  writeFileSync(join(docs, 'e2e-smollm2.json'), `${JSON.stringify(result, null, 1)}\n`)
  const table = (rows: readonly (readonly string[])[]) =>
    rows.map((row) => `| ${row.join(' | ')} |`).join('\n')
  const page = [
    '# SmolLM2-135M-Instruct learns who it is',
    '',
    'Written by `npm run e2e:smollm2` (tests/e2e/smollm2.ts): the whole path over HTTP with the OpenAI client.',
    `Machine: ${machine.cores} × ${machine.cpu}, Node ${machine.node}. Dataset: identity.json with the name ${NAME}.`,
    'The server was killed with SIGKILL after the second checkpoint and went on from it by itself; all',
    `${losses.length} logged losses are bit-identical to those of an uninterrupted run.`,
    '',
    table(
      [['stage', `answer to '${QUESTION}'`], ['---', '---'], ...Object.entries(answers)].map((row) =>
        row.map(cell),
      ),
    ),
    '',
    table([
      ['work', 'seconds'],
      ['---', '---'],
      ...Object.entries(times).map(([name, s]) => [name, s.toFixed(1)]),
    ]),
    '',
    `Losses: ${losses.map((loss) => loss.toFixed(3)).join(', ')}.`,
    '',
  ]
  writeFileSync(join(docs, 'e2e-smollm2.md'), page.join('\n'))
  console.log(JSON.stringify({ times, answers }, null, 1))
}

function cell(text: string): string {
  return text.replaceAll('\n', ' ').replaceAll('|', '\\|').trim()
}
