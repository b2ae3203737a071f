import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type RunningServer, startServer } from '../../../src/main.ts'
import { loadSettings } from '../../../src/settings.ts'
import { ggufBytes } from '../../engine/gguf/gguf-bytes.ts'
import { tinyMetadata, tinyTensors } from '../../engine/gguf/tiny-gguf.ts'
import { anneal } from '../cli/run-anneal.ts'

const root = mkdtempSync(join(tmpdir(), 'anneal-import-'))
const models = join(root, 'models')
const env = {
  ANNEAL_MODELS_DIR: models,
  ANNEAL_DATA_DIR: root,
  ANNEAL_SAVES_DIR: join(root, 'saves'),
  ANNEAL_PORT: '0',
}
let server: RunningServer

beforeAll(async () => {
  mkdirSync(models)
  const bytes = ggufBytes(tinyMetadata(), tinyTensors())
  writeFileSync(join(models, 'Tiny Model.gguf'), bytes)
  writeFileSync(join(models, 'short.gguf'), bytes.subarray(0, 900))
  writeFileSync(join(root, 'outside.gguf'), bytes)
  server = await startServer(await loadSettings({ env, cwd: root }), { logger: pino({ level: 'silent' }) })
})

afterAll(async () => {
  await server.close()
  rmSync(root, { recursive: true })
})

async function post(body: unknown) {
  const headers = { 'content-type': 'application/json' }
  const response = await fetch(`${server.url}/v1/models/import`, {
    method: 'POST',
    headers,
    body: JSON.stringify(body),
  })
  // biome-ignore lint/suspicious/noExplicitAny: bodies are read as a client reads them
  return { status: response.status, body: (await response.json()) as any }
}

describe('POST /v1/models/import', () => {
  it('makes a base model of a file in the models folder', async () => {
    const { status, body } = await post({ file: 'Tiny Model.gguf' })
    expect({ status, body }).toMatchObject({
      status: 201,
      body: { object: 'import', model: 'Tiny-Model', status: 'queued' },
    })
    await (await fetch(`${server.url}/v1/imports/${body.id}/events`)).text()
    const done = await (await fetch(`${server.url}/v1/imports/${body.id}`)).json()
    expect(done).toMatchObject({ status: 'succeeded', bytes: expect.any(Number) })
    const model = await (await fetch(`${server.url}/v1/models/Tiny-Model`)).json()
    expect(model).toMatchObject({ kind: 'base', max_model_len: 64 })
  })

  it.each([
    [{ file: '../outside.gguf' }, 400, 'file'],
    [{ file: '/etc/passwd' }, 400, 'file'],
    [{ file: '..%2foutside.gguf' }, 400, 'file'],
    [{ file: 'a\\b.gguf' }, 400, 'file'],
    [{ file: 'C:\\x.gguf' }, 400, 'file'],
    [{ file: 'x\0.gguf' }, 400, 'file'],
    [{ file: '.gguf' }, 400, 'file'],
    [{ file: 'absent.gguf' }, 404, 'file'],
    [{ file: 'Tiny Model.gguf', name: '../x' }, 400, 'name'],
    [{ file: 'Tiny Model.gguf', name: 'run-0123456789ab' }, 400, 'name'],
    [{ file: 'Tiny Model.gguf', dtype: 'int8' }, 400, 'dtype'],
    [{ file: 'short.gguf' }, 400, null],
  ])('refuses %j before any work starts', async (request, status, param) => {
    const before = readdirSync(models)
    expect(await post(request)).toMatchObject({ status, body: { error: { param } } })
    expect(readdirSync(models)).toEqual(before)
  })

  it('refuses a name that is taken', async () => {
    mkdirSync(join(models, 'taken'))
    writeFileSync(join(models, 'taken/config.json'), '{}')
    expect(await post({ file: 'Tiny Model.gguf', name: 'taken' })).toMatchObject({
      status: 409,
      body: { error: { code: 'model_exists', message: expect.stringContaining('taken') } },
    })
  })
})

describe('anneal import', () => {
  it("takes any file of the operator's terminal", async () => {
    const { code, stdout, stderr } = await anneal(['import', join(root, 'outside.gguf'), '--name', 'mine'], {
      env,
    })
    expect(stderr).toContain('as mine')
    expect({ code, stdout }).toMatchObject({ code: 0, stdout: expect.stringContaining('Base model: mine') })
    expect(readdirSync(join(models, 'mine'))).toContain('model.safetensors')
  })
})
