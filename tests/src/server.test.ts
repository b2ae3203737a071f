import { cpSync, existsSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type RunningServer, startServer } from '../../src/main.ts'
import { loadSettings, type Settings } from '../../src/settings.ts'
import { tinyLlama } from './engine-host/tiny-llama.ts'

const folder = mkdtempSync(join(tmpdir(), 'anneal-server-'))
const logger = pino({ level: 'silent' })
let settings: Settings
let server: RunningServer

beforeAll(async () => {
  mkdirSync(join(folder, 'models'))
  cpSync(tinyLlama(), join(folder, 'models/tiny'), { recursive: true })
  mkdirSync(join(folder, 'data'))
  const rows = Array.from({ length: 8 }, (_, n) => ({
    instruction: `say ${n}`,
    input: '',
    output: `it is ${n}`,
  }))
  writeFileSync(join(folder, 'data/tiny_set.json'), JSON.stringify(rows))
  writeFileSync(
    join(folder, 'data/dataset_info.json'),
    JSON.stringify({ tiny_set: { file_name: 'tiny_set.json' } }),
  )
  const env = {
    ANNEAL_MODELS_DIR: join(folder, 'models'),
    ANNEAL_DATA_DIR: join(folder, 'data'),
    ANNEAL_SAVES_DIR: join(folder, 'saves'),
    ANNEAL_PORT: '0',
  }
  settings = await loadSettings({ env, cwd: folder })
  server = await startServer(settings, { logger })
})

afterAll(() => server.close())

async function call(method: string, path: string, body?: unknown) {
  const response = await fetch(server.url + path, {
    method,
    headers: { 'content-type': 'application/json' },
    body: body === undefined ? undefined : JSON.stringify(body),
  })
  // biome-ignore lint/suspicious/noExplicitAny: bodies are read as a client reads them
  return { status: response.status, body: (await response.json()) as any }
}

const CONFIG = {
  model: 'tiny',
  dataset: 'tiny_set',
  lora_rank: 2,
  max_steps: 4,
  save_steps: 2,
  logging_steps: 1,
}

/** Reads a job's events to their end and returns the job. */
async function finish(path: string) {
  await (await fetch(`${server.url}${path}/events`)).text()
  return (await call('GET', path)).body
}

/** Reads a job's events until one of a type has come. */
async function untilEvent(path: string, type: string): Promise<void> {
  const stop = new AbortController()
  const response = await fetch(`${server.url}${path}/events`, { signal: stop.signal })
  let text = ''
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    text += chunk
    if (text.includes(`event: ${type}\n`)) break
  }
  stop.abort()
}

describe('the path from a base model to an export', () => {
  let run: string
  let merge: string
  let exported: string

  it('trains, and leaves the adapter, its logs, its checkpoints and a picture of the loss', async () => {
    const created = await call('POST', '/v1/training/runs', CONFIG)
    expect(created).toMatchObject({ status: 201, body: { status: 'queued', model: 'tiny' } })
    run = created.body.id
    const done = await finish(`/v1/training/runs/${run}`)
    expect(done).toMatchObject({ status: 'succeeded', progress: { step: 4, total_steps: 4 } })
    expect(done.metrics.train_loss).toBeGreaterThan(0)
    const outputDir = join(settings.directories.saves, done.output_dir)
    for (const file of [
      'adapter_model.safetensors',
      'trainer_log.jsonl',
      'running_log.txt',
      'all_results.json',
    ]) {
      expect(existsSync(join(outputDir, file)), file).toBe(true)
    }
    const { body } = await call('GET', `/v1/training/runs/${run}/checkpoints`)
    expect(body.data.map(({ id }: { id: string }) => id)).toEqual([
      `${run}:ckpt-step-2`,
      `${run}:ckpt-step-4`,
    ])
    expect((await fetch(`${server.url}/v1/training/runs/${run}/loss.png`)).headers.get('content-type')).toBe(
      'image/png',
    )
  })

  it('asks a run in the words that it was trained with', async () => {
    const fields = { template: 'qwen3', enable_thinking: false, default_system: 'Be brief.', max_steps: 1 }
    const { body: created } = await call('POST', '/v1/training/runs', { ...CONFIG, ...fields })
    expect(await finish(`/v1/training/runs/${created.id}`)).toMatchObject({ status: 'succeeded' })
    const asked = { model: created.id, messages: [{ role: 'user', content: 'say 1' }] }
    const { body } = await call('POST', '/v1/chat/completions/render', asked)
    const said =
      '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nsay 1<|im_end|>\n<|im_start|>assistant\n'
    expect(body.text).toBe(`${said}<think>\n\n</think>\n\n`)
    const thinking = { ...asked, chat_template_kwargs: { enable_thinking: true } }
    const rendered = await call('POST', '/v1/chat/completions/render', thinking)
    expect(rendered.body.text).toBe(said)
  })

  it('merges and exports', async () => {
    merge = (await call('POST', '/v1/merges', { model: `${run}:ckpt-step-2` })).body.id
    expect(await finish(`/v1/merges/${merge}`)).toMatchObject({ status: 'succeeded', base: 'tiny' })
    const published = await call('GET', `/hub/api/models/${merge}`)
    expect(published.body.siblings).toContainEqual({ rfilename: 'model.safetensors' })
    exported = (await call('POST', '/v1/exports', { model: merge })).body.id
    expect(await finish(`/v1/exports/${exported}`)).toMatchObject({ status: 'succeeded', dtype: 'bfloat16' })
    const { body } = await call('GET', `/v1/exports/${exported}/files`)
    const names = body.data.map(({ path }: { path: string }) => path)
    expect(names).toEqual(expect.arrayContaining(['config.json', 'model.safetensors', 'tokenizer.json']))
    expect((await call('GET', `/v1/exports/${exported}/files/..%2Fsecret`)).status).toBe(404)
  })

  it('answers as base, checkpoint, run, merge and export', async () => {
    for (const model of ['tiny', `${run}:ckpt-step-2`, run, merge, exported]) {
      const answer = await call('POST', '/v1/chat/completions', {
        model,
        messages: [{ role: 'user', content: 'say 1' }],
        max_tokens: 4,
        temperature: 0,
      })
      expect(answer, model).toMatchObject({ status: 200, body: { model, usage: { completion_tokens: 4 } } })
    }
    const metrics = await (await fetch(`${server.url}/metrics`)).text()
    expect(metrics).toContain('vllm:num_requests_running{model_name=')
    expect(metrics).toContain('vllm:generation_tokens_total{model_name="tiny"} 4')
  })

  it('deletes what it made, and no base model', async () => {
    expect(await call('DELETE', '/v1/models/tiny')).toMatchObject({
      status: 400,
      body: { error: { code: 'base_model_kept' } },
    })
    for (const id of [exported, merge, `${run}:ckpt-step-2`, run]) {
      expect((await call('DELETE', `/v1/models/${id}`)).status, id).toBe(200)
      expect((await call('GET', `/v1/models/${id}`)).status, id).toBe(404)
    }
    expect(existsSync(join(folder, 'models/tiny/config.json'))).toBe(true)
  })
})

describe('POST /v1/training/runs', () => {
  it.each([
    [{ ...CONFIG, model: 'none' }, 404, 'model_not_found', 'model_name_or_path'],
    [{ ...CONFIG, dataset: 'none' }, 404, 'unknown_dataset', 'dataset'],
    [{ ...CONFIG, lora_rnk: 2 }, 400, 'invalid_config', 'lora_rnk'],
    [{ ...CONFIG, lora_target: 'q_prj' }, 400, 'lora_target_unknown', 'lora_target'],
    [{ ...CONFIG, output_dir: '../x' }, 400, 'invalid_output_dir', 'output_dir'],
    [{ ...CONFIG, dataset_dir: '/etc' }, 400, 'dataset_dir_fixed', 'dataset_dir'],
    [{ ...CONFIG, resume_from_checkpoint: '/etc' }, 400, 'invalid_checkpoint', 'resume_from_checkpoint'],
    [
      { ...CONFIG, per_device_train_batch_size: 65536, packing: true, cutoff_len: 100, output_dir: 'big' },
      201,
      undefined,
      undefined,
    ],
  ])('answers %j with %i %s', async (config, status, code, param) => {
    const { status: actual, body } = await call('POST', '/v1/training/runs', config)
    expect({ status: actual, code: code && body.error?.code, param: body.error?.param }).toEqual({
      status,
      code,
      param,
    })
    if (actual === 201) await finish(`/v1/training/runs/${body.id}`)
  })

  it("refuses a folder in the way with LLaMA-Factory's sentence", async () => {
    const outputDir = join(settings.directories.saves, 'taken')
    mkdirSync(outputDir)
    writeFileSync(join(outputDir, 'adapter_config.json'), '{}')
    const { status, body } = await call('POST', '/v1/training/runs', { ...CONFIG, output_dir: 'taken' })
    expect(status).toBe(409)
    expect(body.error.message).toContain(
      'Output directory already exists and is not empty. Please set `overwrite_output_dir`.',
    )
  })

  it('gives runs that are submitted at the same moment folders of their own', async () => {
    const created = await Promise.all([1, 2, 3].map(() => call('POST', '/v1/training/runs', CONFIG)))
    expect(new Set(created.map(({ body }) => body.output_dir)).size).toBe(3)
    for (const { body } of created) {
      await call('POST', `/v1/training/runs/${body.id}/cancel`)
      await finish(`/v1/training/runs/${body.id}`)
    }
  })

  it('cancels with a checkpoint, refuses its folder to others meanwhile, and resumes', async () => {
    const config = { ...CONFIG, max_steps: 100_000, save_steps: 100_000, output_dir: 'long' }
    const { id } = (await call('POST', '/v1/training/runs', config)).body
    const path = `/v1/training/runs/${id}`
    await untilEvent(path, 'progress')
    expect((await call('POST', '/v1/training/runs', config)).body.error.code).toBe('output_dir_in_use')
    expect((await call('DELETE', `/v1/models/${id}:ckpt-step-1`)).status).toBe(404)
    await call('POST', `${path}/cancel`)
    const cancelled = await finish(path)
    expect(cancelled.status).toBe('cancelled')
    expect((await call('GET', `${path}/checkpoints`)).body.data).toHaveLength(1)
    expect((await call('POST', `${path}/resume`)).body.status).toBe('queued')
    await untilEvent(path, 'started')
    await call('POST', `${path}/cancel`)
    const again = await finish(path)
    expect(again.progress.step).toBeGreaterThanOrEqual(cancelled.progress.step)
  })
})

describe('the server', () => {
  it('refuses a second one on the same data', async () => {
    await expect(startServer(settings, { logger })).rejects.toMatchObject({
      code: 'server_running',
      message: expect.stringContaining(`process ${process.pid}`),
    })
  })

  it('goes on with a run that was stopped with it', async () => {
    const config = { ...CONFIG, max_steps: 100_000, save_steps: 100_000, output_dir: 'restarted' }
    const { id } = (await call('POST', '/v1/training/runs', config)).body
    const path = `/v1/training/runs/${id}`
    await untilEvent(path, 'progress')
    const stream = await fetch(`${server.url}${path}/events`)
    const [text] = await Promise.all([stream.text(), server.close()])
    expect(text).toContain('goes on when it starts again')
    server = await startServer(settings, { logger })
    const { data } = (await call('GET', `${path}/checkpoints`)).body
    expect(data).toHaveLength(1)
    await call('POST', `${path}/cancel`)
    const stopped = await finish(path)
    expect(stopped.status).toBe('cancelled')
    expect(stopped.progress.step).toBeGreaterThanOrEqual(data[0].step)
  })
})
