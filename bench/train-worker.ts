/** One side of bench:train in a process of its own: prints step seconds, peak memory and the first loss as JSON. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { initializeLora } from '../engine/adapter/initialize.ts'
import { type Device, parseDevice } from '../engine/onnx/device.ts'
import type { WeightScheme } from '../engine/packed/layout.ts'
import { packBase } from '../engine/quant/packed-base.ts'
import { openBase } from '../engine/quant/source.ts'
import { clipGradients } from '../engine/train/clip.ts'
import { CompiledStep } from '../engine/train/compiled-step.ts'
import { lossChunks } from '../engine/train/estimate.ts'
import { createAdamW } from '../engine/train/optimizers/adamw.ts'
import type { TokenBatch } from '../engine/train/step.ts'
import { listGpus } from '../src/device/gpus.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rows: { type: 'string', default: '2' },
    length: { type: 'string', default: '256' },
    'trained-from': { type: 'string', default: '127' },
    steps: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
    scheme: { type: 'string' },
    method: { type: 'string', default: 'lora' },
    checkpointing: { type: 'boolean', default: false },
    fp16: { type: 'boolean', default: false },
    profile: { type: 'string' },
    device: { type: 'string', default: 'cpu' },
  },
})
const [rows, length, trainedFrom, steps, threads] = [
  values.rows,
  values.length,
  values['trained-from'],
  values.steps,
  values.threads,
].map(Number) as [number, number, number, number, number]

const device = parseDevice(values.device) as Device
const freeBefore = await deviceFree()
const source = openBase(positionals[0]!)
const scratch = mkdtempSync(join(tmpdir(), 'anneal-bench-packed-'))
const scheme = values.scheme as WeightScheme | undefined
const model = scheme ? await packBase(source, { scheme, folder: scratch }) : source
const idLimit = Math.min(40_000, model.config.vocabSize)
const batch = syntheticBatch()
const step = await CompiledStep.create(model, {
  method:
    values.method === 'full'
      ? { kind: 'full' }
      : { kind: 'lora', rank: 8, scale: 2, dropout: 0, targets: 'all' },
  maxLength: length,
  checkpointing: values.checkpointing,
  halfActivations: values.fp16,
  lossChunks: lossChunks(model.config, { stage: 'sft' }, { trained: batch.labels.length }),
  initialize: initializeLora(42, (name) => model.weights.readFloat32(name)),
  session: { device, threads, profilePrefix: values.profile },
})
const optimizer = createAdamW(step.parameters, { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 })
const seconds: number[] = []
let firstLoss: number | undefined
for (let index = 0; index <= steps; index++) {
  const start = performance.now()
  const { loss, gradients } = await step.run(batch, 1 / batch.labels.length)
  clipGradients(gradients, 1)
  optimizer.update(gradients, 1e-4)
  seconds.push((performance.now() - start) / 1000)
  firstLoss ??= loss
}
// The runtime keeps what it has taken of a device until the session goes, so this is the most that it needed.
const deviceBytes = freeBefore === undefined ? undefined : freeBefore - ((await deviceFree()) ?? 0)
await step.release()
rmSync(scratch, { recursive: true })
const peakBytes = deviceBytes ?? process.resourceUsage().maxRSS * 1024
console.log(JSON.stringify({ seconds: seconds.slice(1), peakBytes, firstLoss }))

/** Free memory of this process's GPU; undefined where the driver does not tell, or on other devices. */
async function deviceFree(): Promise<number | undefined> {
  return device.kind === 'cuda' ? (await listGpus())?.[0]?.freeBytes : undefined
}

/** The same ids as the rival's; label i + 1 is trained from `trainedFrom` on. */
function syntheticBatch(): TokenBatch {
  const ids = Array.from({ length: rows * length }, (_, index) => (index * 37 + 11) % idLimit)
  const positions: number[] = []
  for (let row = 0; row < rows; row++) {
    for (let place = trainedFrom; place + 1 < length; place++) positions.push(row * length + place)
  }
  return {
    rows,
    length,
    inputIds: BigInt64Array.from(ids, BigInt),
    trainedPositions: BigInt64Array.from(positions, BigInt),
    labels: BigInt64Array.from(positions, (position) => BigInt(ids[position + 1]!)),
    tokens: rows * length,
  }
}
