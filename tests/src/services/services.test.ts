import { createHash } from 'node:crypto'
import { cpSync, mkdirSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { type Application, openApplication } from '../../../src/application.ts'
import { authService } from '../../../src/services/system.ts'
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
  const directories = { models: [join(folder, 'models')], datasets: folder, saves: join(folder, 'saves') }
  const config = configSchema.parse({ directories, policy, limits })
  const database = join(folder, 'saves/anneal.db')
  application = openApplication({ ...config, configFile: 'none', database })
  return application
}

const REQUEST = { model: 'tiny', bits: 4, format: 'safetensors', export_size: 5 } as const

describe('exports', () => {
  it('refuse a small model at 4 bits by policy', async () => {
    await expect(open().services.exports.create(REQUEST)).rejects.toMatchObject({
      kind: 'refused',
      code: 'model_too_small',
    })
  })

  it('say that 4 bits are not written yet where the operator lifted the limit', async () => {
    const { services } = open({ minQuantizeParameters: 0 })
    await expect(services.exports.create(REQUEST)).rejects.toMatchObject({
      kind: 'unsupported',
      code: 'bits_not_supported',
    })
  })

  it('say which formats are not written yet', async () => {
    const request = { ...REQUEST, bits: 16, format: 'gguf' } as const
    await expect(open().services.exports.create(request)).rejects.toMatchObject({ param: 'format' })
  })

  it('hand out no file before they have succeeded', async () => {
    const { services } = open()
    const { id } = await services.exports.create({ ...REQUEST, bits: 16 })
    await expect(services.exports.files(id)).rejects.toMatchObject({ kind: 'conflict' })
    await expect(services.merges.get(id)).rejects.toMatchObject({ kind: 'not_found' })
  })

  it('refuse more jobs than may wait', async () => {
    const { services } = open({}, { queuedJobs: 1 })
    await services.exports.create({ ...REQUEST, bits: 16 })
    await expect(services.exports.create({ ...REQUEST, bits: 16 })).rejects.toMatchObject({
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
    for (let n = 0; n < 3; n++) ids.push((await services.exports.create({ ...REQUEST, bits: 16 })).id)
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
    const { id } = await services.exports.create({ ...REQUEST, model: merge.id, bits: 16 })
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
      true,
      true,
      false,
      false,
    ])
  })

  it('asks for none where none is configured', () => {
    expect(authService([]).required).toBe(false)
  })
})
