import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { exportRequest } from '../../../routes/schemas/artifacts.ts'
import { type Application, openApplication } from '../../../src/application.ts'
import { Devices } from '../../../src/device/devices.ts'
import type { ServiceContext } from '../../../src/services/context.ts'
import { authService, systemService } from '../../../src/services/system.ts'
import { configSchema, type Settings } from '../../../src/settings.ts'
import { tinyLlama } from '../engine-host/tiny-llama.ts'

let application: Application | undefined

afterEach(async () => {
  await application?.close()
  application = undefined
})

function open(
  policy: Partial<Settings['policy']> = {},
  limits: Partial<Settings['limits']> = {},
): Application {
  const folder = mkdtempSync(join(tmpdir(), 'anneal-services-'))
  mkdirSync(join(folder, 'models'))
  cpSync(tinyLlama(), join(folder, 'models/tiny'), { recursive: true })
  writeFileSync(join(folder, 'dataset_info.json'), JSON.stringify({ rows: { file_name: 'rows.json' } }))
  writeFileSync(join(folder, 'rows.json'), JSON.stringify([{ instruction: 'q', output: 'a' }]))
  const directories = { models: [join(folder, 'models')], datasets: folder, saves: join(folder, 'saves') }
  const config = configSchema.parse({ directories, policy, limits })
  const database = join(folder, 'saves/anneal.db')
  application = openApplication({ ...config, configFile: 'none', database })
  return application
}

const REQUEST = exportRequest.parse({ model: 'tiny', bits: 4, format: 'gptq' })
const PLAIN = exportRequest.parse({ model: 'tiny' })

describe('training runs', () => {
  it('that were cancelled before their first checkpoint begin anew when they are resumed', async () => {
    const { services, queue } = open()
    const { id } = await services.training.create({ model: 'tiny', dataset: 'rows', max_steps: 1 })
    await queue.requestCancel(id)
    expect((await services.training.get(id)).status).toBe('cancelled')
    expect((await services.training.resume(id)).status).toBe('queued')
  })

  it('of whose checkpoints none can be resumed are left as they are', async () => {
    const { services, queue } = open()
    const run = await services.training.create({
      model: 'tiny',
      dataset: 'rows',
      output_dir: 'mine',
      max_steps: 1,
    })
    await queue.requestCancel(run.id)
    mkdirSync(join((await queue.get(run.id))!.outputDir, 'checkpoint-5'))
    await expect(services.training.resume(run.id)).rejects.toMatchObject({ code: 'no_checkpoint' })
  })
})

describe('training runs in a folder that an earlier one had', () => {
  const request = { model: 'tiny', dataset: 'rows', output_dir: 'mine', max_steps: 1 }

  /** A run that has written an adapter and a log, and is at rest. */
  async function rest({ services, queue, settings }: Application, overwrite: boolean) {
    const { id } = await services.training.create({ ...request, overwrite_output_dir: overwrite })
    await queue.claim('train', { pid: 1, startedAt: '' })
    const folder = join(settings.directories.saves, 'mine')
    for (const name of ['adapter_model.safetensors', 'trainer_state.json', 'running_log.txt'])
      writeFileSync(join(folder, name), '{}')
    await queue.settle(id, { status: 'cancelled', message: '' })
    return { id, folder }
  }

  it("have it: deleting the earlier one leaves the later one's files, and it cannot be resumed", async () => {
    const application = open()
    const { services } = application
    const earlier = await rest(application, false)
    const { id } = await services.training.create({ ...request, overwrite_output_dir: true })
    expect(readdirSync(earlier.folder)).toEqual([])
    await services.training.cancel(id)
    const taken = { code: 'output_dir_taken', message: expect.stringContaining(id) }
    await expect(services.training.resume(earlier.id)).rejects.toMatchObject(taken)
    await expect(services.training.log(earlier.id)).rejects.toMatchObject(taken)
    expect(await services.training.checkpoints(earlier.id)).toEqual([])
    writeFileSync(join(earlier.folder, 'adapter_model.safetensors'), '{}')
    await services.training.delete(earlier.id)
    expect(readdirSync(earlier.folder)).toEqual(['adapter_model.safetensors'])
    await services.training.delete(id)
    expect(existsSync(earlier.folder)).toBe(false)
  })

  it('do not begin while a job reads what it would remove', async () => {
    const application = open()
    const { services, queue } = application
    const { folder } = await rest(application, false)
    const model = { id: 'tiny', baseFolder: '/nowhere', root: 'tiny' }
    const merge = { id: 'merge-00000000000a', kind: 'merge', request: {}, outputDir: '/there' } as const
    await queue.submit({ ...merge, resolved: { model, adapterFolder: folder } })
    await expect(services.training.create({ ...request, overwrite_output_dir: true })).rejects.toMatchObject({
      code: 'model_in_use',
    })
    expect(existsSync(join(folder, 'adapter_model.safetensors'))).toBe(true)
  })
})

describe('exports', () => {
  it('refuse a small model at 4 bits by policy', async () => {
    await expect(open().services.exports.create(REQUEST)).rejects.toMatchObject({
      kind: 'refused',
      code: 'model_too_small',
    })
  })

  it.each([
    ['bits', { format: 'safetensors', bits: 4 }],
    ['bits', { format: 'gptq', bits: 16 }],
    ['method', { format: 'gguf', bits: 16, method: 'gptq' }],
    ['gguf_type', { format: 'gguf', bits: 4, method: 'awq', gguf_type: 'Q4_K_M' }],
    ['export_quantization_dataset', { format: 'ollama', bits: 4, method: 'gptq' }],
    ['method', { format: 'safetensors', bits: 16, method: 'rtn' }],
    ['gguf_type', { format: 'gguf', bits: 8, gguf_type: 'Q4_0' }],
    ['gguf_type', { format: 'gptq', bits: 4, method: 'rtn', gguf_type: 'Q4_0' }],
    ['desc_act', { format: 'gptq', bits: 4, method: 'rtn', report_dataset: 'rows', desc_act: true }],
    ['max_kld', { format: 'gguf', bits: 16, max_kld: 0.1 }],
    ['group_size', { format: 'gguf', bits: 4, report_dataset: 'rows', group_size: 32 }],
    ['sym', { format: 'onnx', bits: 16, dtype: 'float32', sym: false }],
    ['damp_percent', { format: 'gptq', bits: 4, method: 'rtn', report_dataset: 'rows', damp_percent: 0.1 }],
    ['export_quantization_dataset', { format: 'gptq', bits: 4, method: 'gptq' }],
    ['report_dataset', { format: 'gptq', bits: 4, method: 'rtn' }],
    ['model', { format: 'adapter' }],
  ])('name %s when %o does not go together', async (param, fields) => {
    const { services } = open({ minQuantizeParameters: 0 })
    const request = exportRequest.parse({ model: 'tiny', ...fields })
    await expect(services.exports.create(request)).rejects.toMatchObject({ kind: 'invalid', param })
  })

  it('refuse to quantize routed experts before anything is queued', async () => {
    const { services, settings } = open({ minQuantizeParameters: 0 })
    const file = join(settings.directories.models[0]!, 'tiny/config.json')
    const config = JSON.parse(readFileSync(file, 'utf8'))
    writeFileSync(file, JSON.stringify({ ...config, model_type: 'mixtral', sliding_window: null }))
    for (const format of ['gptq', 'onnx']) {
      const request = exportRequest.parse({
        model: 'tiny',
        bits: 4,
        format,
        method: 'rtn',
        report_dataset: 'rows',
      })
      const refused = { kind: 'unsupported', code: 'experts_not_quantized' }
      await expect(services.exports.create(request)).rejects.toMatchObject(refused)
    }
  })

  it('know only datasets that exist', async () => {
    const { services } = open({ minQuantizeParameters: 0 })
    for (const param of ['export_quantization_dataset', 'report_dataset']) {
      const request = { ...REQUEST, export_quantization_dataset: 'rows', [param]: 'nowhere' }
      const refused = { code: 'unknown_dataset', param }
      await expect(services.exports.create(request)).rejects.toMatchObject(refused)
    }
  })

  it('hand out no file before they have succeeded', async () => {
    const { services } = open()
    const { id } = await services.exports.create(PLAIN)
    await expect(services.exports.files(id)).rejects.toMatchObject({ kind: 'conflict' })
    await expect(services.merges.get(id)).rejects.toMatchObject({ kind: 'not_found' })
  })

  it('refuse more jobs than may wait', async () => {
    const { services } = open({}, { queuedJobs: 1 })
    await services.exports.create(PLAIN)
    await expect(services.exports.create(PLAIN)).rejects.toMatchObject({
      kind: 'unavailable',
      code: 'queue_full',
    })
  })
})

describe('merges', () => {
  it('refuse a whole model: there is nothing to merge', async () => {
    await expect(open().services.merges.create({ model: 'tiny' })).rejects.toMatchObject({
      code: 'not_an_adapter',
    })
  })
})

describe('lists of jobs', () => {
  it('come newest first, in pages', async () => {
    const { services } = open()
    const ids: string[] = []
    for (let n = 0; n < 3; n++) ids.push((await services.exports.create(PLAIN)).id)
    const first = await services.exports.list({ limit: 2 })
    expect(first.data.map(({ id }) => id)).toEqual([ids[2], ids[1]])
    expect(first.hasMore).toBe(true)
    const second = await services.exports.list({ limit: 2, after: ids[1] })
    expect(second).toMatchObject({ data: [{ id: ids[0] }], hasMore: false })
    await expect(services.exports.list({ limit: 2, after: 'export-0' })).rejects.toMatchObject({
      kind: 'invalid',
      param: 'after',
    })
  })
})

describe('models', () => {
  it('that a waiting job reads are not deleted', async () => {
    const { services, queue, settings } = open()
    const baseFolder = join(settings.directories.saves, 'merges/merge-00000000000a')
    const model = { id: 'tiny', baseFolder: join(settings.directories.models[0]!, 'tiny'), root: 'tiny' }
    const merge = { id: 'merge-00000000000a', kind: 'merge', request: {}, outputDir: baseFolder } as const
    cpSync(model.baseFolder, baseFolder, { recursive: true })
    await queue.submit({ ...merge, resolved: { model } })
    await queue.claim('merge', { pid: 1, startedAt: '' })
    await queue.settle(merge.id, { status: 'succeeded', result: {} })
    const { id } = await services.exports.create({ ...PLAIN, model: merge.id })
    await expect(services.models.delete(merge.id)).rejects.toMatchObject({ code: 'model_in_use' })
    await services.exports.cancel(id)
    await services.models.delete(merge.id)
    await expect(services.models.get(merge.id)).rejects.toMatchObject({ kind: 'not_found' })
  })
})

describe('authService', () => {
  const hash = (key: string) => createHash('sha256').update(key).digest('hex')

  it('accepts every configured key and no other', () => {
    const auth = authService([hash('first'), hash('second')])
    expect(auth.required).toBe(true)
    expect(['first', 'second', 'third', ''].map((key) => auth.authenticate(key))).toEqual([
      ['admin'],
      ['admin'],
      undefined,
      undefined,
    ])
  })

  it('tells what a key with scopes is good for', () => {
    const auth = authService([{ sha256: hash('chatty'), scopes: ['chat', 'metrics'] }])
    expect(auth.authenticate('chatty')).toEqual(['chat', 'metrics'])
  })

  it('asks for none where none is configured', () => {
    expect(authService([]).required).toBe(false)
  })
})

describe('systemService', () => {
  it('is healthy again once a request has loaded what could not be preloaded', async () => {
    const loaded: Array<{ baseFolder: string; state: string }> = []
    const hosts = { loaded: () => loaded }
    const context = { settings: { device: 'cpu' }, version: '1', hosts, devices: new Devices() }
    const failedPreloads = [{ id: 'late', code: 'model_unloaded', baseFolder: '/models/late' }]
    const system = systemService(context as unknown as ServiceContext, { status: 'ok', failedPreloads })
    expect(await system.health()).toMatchObject({
      status: 'preload_failed',
      failedModels: [{ id: 'late', code: 'model_unloaded' }],
    })
    loaded.push({ baseFolder: '/models/late', state: 'ready' })
    expect(await system.health()).toMatchObject({ status: 'ok', failedModels: [] })
  })
})
