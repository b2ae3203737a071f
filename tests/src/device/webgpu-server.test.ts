import { cpSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type RunningServer, startServer } from '../../../src/main.ts'
import { CONFIG_NAME, loadSettings } from '../../../src/settings.ts'
import { webgpuMissing } from '../../webgpu.ts'
import { tinyLlama } from '../engine-host/tiny-llama.ts'

const missing = await webgpuMissing()
const ROWS = [{ instruction: 'Who are you?', input: '', output: 'I am Anneal.' }]

let server: RunningServer

async function call(method: string, path: string, body?: unknown) {
  const headers = { 'content-type': 'application/json' }
  const response = await fetch(server.url + path, { method, headers, body: JSON.stringify(body) })
  // biome-ignore lint/suspicious/noExplicitAny: bodies are read as a client reads them
  return { status: response.status, body: (await response.json()) as any }
}

/** Waits for a run's last event; returns the run and what its events said. */
async function finished(id: string) {
  const events = await (await fetch(`${server.url}/v1/training/runs/${id}/events`)).text()
  return { run: (await call('GET', `/v1/training/runs/${id}`)).body, events }
}

// a GPU in software, shared with whatever else the machine does
describe.skipIf(missing)(`a server on WebGPU${missing}`, { timeout: 240_000 }, () => {
  beforeAll(async () => {
    const root = mkdtempSync(join(tmpdir(), 'anneal-webgpu-'))
    for (const name of ['tiny', 'on-cpu'])
      cpSync(tinyLlama(), join(root, 'models', name), { recursive: true })
    mkdirSync(join(root, 'data'))
    writeFileSync(join(root, 'data/rows.json'), JSON.stringify(ROWS))
    const datasets = { rows: { file_name: 'rows.json' } }
    writeFileSync(join(root, 'data/dataset_info.json'), JSON.stringify(datasets))
    const env = {
      ANNEAL_MODELS_DIR: join(root, 'models'),
      ANNEAL_DATA_DIR: join(root, 'data'),
      ANNEAL_SAVES_DIR: join(root, 'saves'),
      ANNEAL_PORT: '0',
    }
    const config = { device: 'webgpu', chat: { modelDevices: { 'on-cpu': 'cpu' } } }
    writeFileSync(join(root, CONFIG_NAME), `export default ${JSON.stringify(config)}`)
    const settings = await loadSettings({ env, cwd: root })
    server = await startServer(settings, { logger: pino({ level: 'silent' }) })
  })
  afterAll(() => server.close())

  it('says so in /health', async () => {
    const { body } = await call('GET', '/health')
    expect(body).toMatchObject({ status: 'ok', device: 'webgpu' })
  })

  it('trains to the loss of the CPU', async () => {
    const config = { model: 'tiny', dataset: 'rows', max_steps: 2, logging_steps: 1, lora_rank: 2 }
    const losses = []
    for (const fields of [{}, { use_cpu: true }]) {
      const { body } = await call('POST', '/v1/training/runs', { ...config, ...fields })
      const { run, events } = await finished(body.id)
      expect(run).toMatchObject({ status: 'succeeded' })
      expect(events.includes('Started on webgpu.')).toBe(!('use_cpu' in fields))
      losses.push(run.metrics.train_loss)
    }
    expect(losses[0]).toBeGreaterThan(0)
    expect(losses[0]).toBeCloseTo(losses[1], 4)
  })

  it('chats as a model on the CPU does', async () => {
    const messages = [{ role: 'user', content: 'Who are you?' }]
    const request = { messages, max_tokens: 4, temperature: 0 }
    const answers = []
    for (const model of ['tiny', 'on-cpu']) {
      const { body } = await call('POST', '/v1/chat/completions', { ...request, model })
      expect(body.error).toBeUndefined()
      expect(server.application.hosts.loaded()[0]?.device).toBe(model === 'tiny' ? 'webgpu' : 'cpu')
      answers.push(body.choices[0].message.content)
    }
    expect(answers[0]).toBe(answers[1])
    expect(answers[0]).not.toBe('')
  })

  it('refuses a run on a device that is not here, before anything begins', async () => {
    const config = { model: 'tiny', dataset: 'rows', device: 'cuda:7' }
    const { status, body } = await call('POST', '/v1/training/runs', config)
    expect(status).toBe(400)
    expect(body.error).toMatchObject({ code: 'device_unavailable', param: 'device' })
  })
})
