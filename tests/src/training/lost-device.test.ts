import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import { ON_CPU } from '../../../src/device/devices.ts'
import type { JobPlaces } from '../../../src/jobs/job-run.ts'
import type { TrainTask } from '../../../src/training/task.ts'
import { tinyLlama } from '../engine-host/tiny-llama.ts'
import { atRest, fakeJob, fakeSupervisor, type OpenQueue, openQueue } from '../jobs/support.ts'

const folder = mkdtempSync(join(tmpdir(), 'anneal-lost-'))
const baseFolder = tinyLlama()
const WORKER = new URL('../../../src/tasks/worker.ts', import.meta.url)
let open: OpenQueue

beforeAll(() => {
  open = openQueue()
  const rows = Array.from({ length: 8 }, (_, n) => ({
    instruction: `say ${n}`,
    input: '',
    output: `it is ${n}`,
  }))
  writeFileSync(join(folder, 'rows.json'), JSON.stringify(rows))
  writeFileSync(join(folder, 'dataset_info.json'), JSON.stringify({ rows: { file_name: 'rows.json' } }))
})
afterAll(() => {
  open.close()
  for (const each of [folder, baseFolder]) rmSync(each, { recursive: true })
})

function newRun(outputDir: string) {
  const config = parseTrainConfig({
    model: 'tiny',
    dataset: 'rows',
    max_steps: 200,
    save_steps: 50,
    logging_steps: 10,
    lora_rank: 2,
    lora_dropout: 0.1,
    learning_rate: 0.01,
    per_device_train_batch_size: 2,
  })
  const resolved: TrainTask = { model: { id: 'tiny', root: 'tiny', baseFolder }, config, datasetDir: folder }
  return { ...fakeJob(''), resolved: { ...resolved }, outputDir }
}

/** Trains in the queue's real child, which is killed when its device `loses`, after its first checkpoint. */
async function train(name: string, loses: boolean): Promise<{ outputDir: string; devices: unknown[] }> {
  const outputDir = join(folder, name)
  const job = newRun(outputDir)
  const devices: unknown[] = []
  // The CPU computes under the names of GPUs, so that a run that goes on has to come to the same numbers.
  const places: JobPlaces = {
    place: async () => ({ ...ON_CPU, name: `cuda:${devices.length}` }),
    retest: async () => false,
  }
  const supervisor = fakeSupervisor(open, { places, entry: WORKER })
  const unwatch = open.queue.watch(async () => {
    const events = await open.queue.eventsAfter(job.id, 0, 1000)
    const started = events.filter(({ type }) => type === 'started').map(({ data }) => data.device)
    devices.splice(0, devices.length, ...started)
    const { workerPid = null } = (await open.queue.get(job.id)) ?? {}
    const isSaved = events.some(({ type }) => type === 'checkpoint')
    if (loses && isSaved && started.length === 1 && workerPid !== null) process.kill(workerPid, 'SIGKILL')
  })
  try {
    await open.queue.submit(job)
    supervisor.start()
    expect(await atRest(open, job.id)).toMatchObject({ status: 'succeeded' })
    return { outputDir, devices }
  } finally {
    unwatch()
    await supervisor.drain()
  }
}

/** Its log without what depends on the clock. */
function losses(outputDir: string): unknown[] {
  const lines = readFileSync(join(outputDir, 'trainer_log.jsonl'), 'utf8').trim().split('\n')
  return lines.map((line) => {
    const { current_steps, loss, lr } = JSON.parse(line)
    return { current_steps, loss, lr }
  })
}

it('a run whose device is lost ends on another one as if nothing had been', async () => {
  const whole = await train('whole', false)
  expect(whole.devices).toEqual(['cuda:0'])
  const lost = await train('lost', true)
  expect(lost.devices).toEqual(['cuda:0', 'cuda:1'])
  expect(losses(lost.outputDir)).toEqual(losses(whole.outputDir))
  const adapter = (dir: string) => readFileSync(join(dir, 'adapter_model.safetensors'))
  expect(adapter(lost.outputDir).equals(adapter(whole.outputDir))).toBe(true)
})

it('a run for which its GPU has too little free memory fails with the numbers, before its first step', async () => {
  const gpu = { name: 'NVIDIA L4', totalBytes: 24e9, freeBytes: 123_456_789 }
  const places: JobPlaces = {
    place: async () => ({ ...ON_CPU, name: 'cuda:0', gpu }),
    retest: async () => true,
  }
  const supervisor = fakeSupervisor(open, { places, entry: WORKER })
  const job = newRun(join(folder, 'too-large'))
  await open.queue.submit(job)
  supervisor.start()
  const { status, error } = await atRest(open, job.id)
  await supervisor.drain()
  expect(status).toBe('failed')
  expect(error).toMatchObject({ kind: 'too_large', code: 'out_of_memory' })
  expect(error?.message).toMatch(/needs about .* bytes\) of memory, but only 0\.12 GB \(123456789 bytes\)/)
})
