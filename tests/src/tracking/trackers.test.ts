import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import type { TrainEvent } from '../../../engine/train/events.ts'
import { crc32c } from '../../../src/tracking/event-file.ts'
import { trackEvents, trackersOf } from '../../../src/tracking/index.ts'

const progress = {
  totalSteps: 4,
  epoch: 0.5,
  percentage: 50,
  elapsedSeconds: 1,
  remainingSeconds: 1,
  tokens: 10,
  tokensPerSecond: 10,
}
const start = (resumedStep: number): TrainEvent => ({
  type: 'start',
  totalSteps: 4,
  stepsPerEpoch: 4,
  epochs: 1,
  examples: 4,
  evalExamples: 1,
  trainableParameters: 1,
  allParameters: 2,
  resumedStep,
})
const log = (step: number, loss: number): TrainEvent => {
  const metrics = { 'rewards/chosen': 0.25 }
  return { type: 'log', loss, learningRate: 0.5, gradNorm: 2, metrics, ...progress, step }
}
const evaluation = (step: number, loss: number): TrainEvent => {
  return { type: 'eval', loss, seconds: 1, metrics: { eval_loss: loss }, ...progress, step }
}
const done: TrainEvent = {
  type: 'done',
  results: { train: { train_loss: 1 } },
  history: { step: 4, epoch: 1, maxSteps: 4, epochs: 1, tokens: 10, totalFlos: 1, entries: [] },
  ...progress,
  step: 4,
}

interface Tracking {
  mlflow?: { uri: string; experiment: string; token?: string }
}

/** Passes events on to the trackers of a run; returns its folder and the warnings. */
async function follow(
  reportTo: string,
  events: readonly TrainEvent[],
  options: { outputDir?: string; tracking?: Tracking } = {},
) {
  const outputDir = options.outputDir ?? mkdtempSync(join(tmpdir(), 'anneal-tracking-'))
  const config = parseTrainConfig({ model: 'tiny', dataset: 'set', report_to: reportTo })
  const warnings: string[] = []
  const trackers = trackersOf(config, { tracking: options.tracking ?? {} })
  const track = trackEvents(trackers, { id: 'run-1', config, outputDir }, (message) => warnings.push(message))
  for (const event of events) await track(event)
  return { outputDir, warnings }
}

/** Reads TFRecord framing and the few protobuf fields of a scalar event, checking every CRC. */
function readScalars(file: string): { step: number; tag: string; value: number }[] {
  const bytes = readFileSync(file)
  const unmask = (masked: number) => {
    const rotated = (masked - 0xa282ead8) >>> 0
    return ((rotated >>> 17) | (rotated << 15)) >>> 0
  }
  const scalars: { step: number; tag: string; value: number }[] = []
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at))
    expect(unmask(bytes.readUInt32LE(at + 8))).toBe(crc32c(bytes.subarray(at, at + 8)))
    const data = bytes.subarray(at + 12, at + 12 + length)
    expect(unmask(bytes.readUInt32LE(at + 12 + length))).toBe(crc32c(data))
    at += 16 + length
    const fields = readFields(data)
    const step = Number(fields.find(({ field }) => field === 2)?.value ?? 0)
    for (const { value: summary } of fields.filter(({ field }) => field === 5)) {
      for (const { value } of readFields(summary as Buffer)) {
        const [tag, simple] = readFields(value as Buffer)
        scalars.push({ step, tag: String(tag!.value), value: (simple!.value as Buffer).readFloatLE() })
      }
    }
  }
  return scalars
}

function readFields(bytes: Buffer): { field: number; value: bigint | Buffer }[] {
  const fields: { field: number; value: bigint | Buffer }[] = []
  let at = 0
  const varint = () => {
    let value = 0n
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
  }
  while (at < bytes.length) {
    const key = Number(varint())
    const kind = key & 7
    if (kind === 0) fields.push({ field: key >> 3, value: varint() })
    else {
      const length = kind === 2 ? Number(varint()) : kind === 1 ? 8 : 4
      fields.push({ field: key >> 3, value: bytes.subarray(at, at + length) })
      at += length
    }
  }
  return fields
}

describe('TensorBoard', () => {
  it('computes CRC-32C as its test vectors say', () => {
    // RFC 3720, appendix B.4, and the catalogue's check value.
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa)
    expect(crc32c(new TextEncoder().encode('123456789'))).toBe(0xe3069283)
  })

  it("gets every logged value under transformers' tags", async () => {
    const { outputDir, warnings } = await follow('tensorboard', [
      start(0),
      log(2, 1.5),
      evaluation(2, 1.25),
      done,
    ])
    const [file] = readdirSync(join(outputDir, 'runs'))
    const scalars = readScalars(join(outputDir, 'runs', file!))
    expect(scalars).toContainEqual({ step: 2, tag: 'train/loss', value: 1.5 })
    expect(scalars).toContainEqual({ step: 2, tag: 'train/rewards/chosen', value: 0.25 })
    expect(scalars).toContainEqual({ step: 2, tag: 'eval/loss', value: 1.25 })
    expect(warnings).toEqual([])
  })

  const python = process.env.JUDGE_PYTHON
  it.skipIf(!python)(
    'is read by its own reader, a resume included (skipped without JUDGE_PYTHON)',
    async () => {
      const { outputDir } = await follow('tensorboard', [start(0), log(1, 4), log(2, 3), log(3, 2.5)])
      const before = readdirSync(join(outputDir, 'runs'))
      await follow('tensorboard', [start(2), log(3, 2.25), evaluation(3, 2)], { outputDir })
      expect(readdirSync(join(outputDir, 'runs')).length).toBe(before.length + 1)
      const script = resolve(import.meta.dirname, '../../parity/judge-tensorboard.py')
      const output = execFileSync(python!, [script, join(outputDir, 'runs')], { encoding: 'utf8' })
      expect(JSON.parse(output.trim().split('\n').at(-1)!)).toMatchObject({
        'train/loss': [
          [1, 4],
          [2, 3],
          [3, 2.25],
        ],
        'eval/loss': [[3, 2]],
      })
    },
  )
})

describe('MLflow', () => {
  let server: Server | undefined
  afterEach(() => server?.close())

  /** A server that keeps what it is told; `status` answers instead where it is given. */
  async function mlflow(status?: () => number | undefined) {
    const calls: { path: string; body: Record<string, unknown>; token?: string }[] = []
    const answers: Record<string, unknown> = {
      'experiments/create': { experiment_id: '7' },
      'runs/create': { run: { info: { run_id: 'abc' } } },
    }
    server = createServer((request, response) => {
      let text = ''
      request.on('data', (piece) => (text += piece))
      request.on('end', () => {
        const path = request.url!.replace('/api/2.0/mlflow/', '').split('?')[0]!
        calls.push({ path, body: text ? JSON.parse(text) : {}, token: request.headers.authorization })
        response.statusCode = status?.() ?? (path === 'experiments/get-by-name' ? 404 : 200)
        response.end(JSON.stringify(answers[path] ?? {}))
      })
    })
    await new Promise<void>((listening) => server!.listen(0, '127.0.0.1', listening))
    const { port } = server.address() as AddressInfo
    return { calls, tracking: { mlflow: { uri: `http://127.0.0.1:${port}`, experiment: 'exp', token: 't' } } }
  }

  it('gets a run with its parameters and curves, and goes on with it after a resume', async () => {
    const { calls, tracking } = await mlflow()
    const { outputDir } = await follow('mlflow', [start(0), log(2, 1.5)], { tracking })
    expect(calls.map(({ path }) => path).filter((path) => path !== 'runs/log-batch')).toEqual([
      'experiments/get-by-name',
      'experiments/create',
      'runs/create',
    ])
    expect(calls.every(({ token }) => token === 'Bearer t')).toBe(true)
    expect(calls.at(-1)!.body).toMatchObject({
      run_id: 'abc',
      metrics: expect.arrayContaining([expect.objectContaining({ key: 'loss', value: 1.5, step: 2 })]),
    })
    calls.length = 0
    await follow('mlflow', [start(2), log(3, 1), done], { tracking, outputDir })
    expect(calls.map(({ path }) => path)).toEqual(['runs/log-batch', 'runs/update'])
    expect(calls[1]!.body).toMatchObject({ run_id: 'abc', status: 'FINISHED' })
  })

  it('that fails is warned about once, and gets everything when it answers again', async () => {
    let broken = true
    const { calls, tracking } = await mlflow(() => (broken ? 500 : undefined))
    const config = parseTrainConfig({ model: 'tiny', dataset: 'set', report_to: 'mlflow' })
    const outputDir = mkdtempSync(join(tmpdir(), 'anneal-tracking-'))
    const warnings: string[] = []
    const run = { id: 'run-1', config, outputDir }
    const track = trackEvents(trackersOf(config, { tracking }), run, (message) => warnings.push(message))
    for (const event of [start(0), log(1, 3), log(2, 2)]) await track(event)
    expect(warnings).toEqual([expect.stringContaining('The tracker mlflow failed')])
    broken = false
    calls.length = 0
    await track({ ...done })
    const sent = calls.flatMap(
      ({ body }) => (body.metrics as { key: string; value: number }[] | undefined) ?? [],
    )
    expect(sent.filter(({ key }) => key === 'loss').map(({ value }) => value)).toEqual([3, 2])
    expect(warnings).toHaveLength(1)
  })

  it('that nobody has set up is refused before a run starts, and left out of all', () => {
    const config = (reportTo: string) =>
      parseTrainConfig({ model: 'tiny', dataset: 'set', report_to: reportTo })
    expect(() => trackersOf(config('mlflow'), { tracking: {} })).toThrow(/tracking\.mlflow\.uri/)
    expect(trackersOf(config('all'), { tracking: {} }).map(({ name }) => name)).toEqual(['tensorboard'])
    expect(trackersOf(config('none'), { tracking: {} })).toEqual([])
  })
})
