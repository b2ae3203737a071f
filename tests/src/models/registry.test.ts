import { mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { misnamedFolders } from '../../../src/models/bases.ts'
import { ModelRegistry } from '../../../src/models/registry.ts'
import { type OpenQueue, openQueue, self } from '../jobs/support.ts'

let open: OpenQueue
let models: string
let registry: ModelRegistry

function folderWith(path: string, ...files: string[]): string {
  mkdirSync(path, { recursive: true })
  for (const file of files) writeFileSync(join(path, file), '{}')
  return path
}

/** A job at rest whose row says that it started from `tiny`. */
async function finished(
  id: string,
  kind: 'train' | 'merge' | 'export',
  outputDir: string,
  resolved: object = {},
) {
  const model = { id: 'tiny', baseFolder: join(models, 'tiny'), root: 'tiny' }
  await open.queue.submit({ id, kind, request: {}, resolved: { model, ...resolved }, outputDir })
  await open.queue.claim(kind, self)
  await open.queue.settle(id, { status: 'succeeded', result: {} })
}

beforeEach(() => {
  open = openQueue(mkdtempSync(join(tmpdir(), 'anneal-registry-')))
  models = folderWith(join(open.folder, 'models'))
  folderWith(join(models, 'tiny'), 'config.json')
  registry = new ModelRegistry([models, join(open.folder, 'absent')], open.queue)
})

describe('ModelRegistry', () => {
  it('finds base models by folder name, and only folders with a config.json and a plain name', async () => {
    folderWith(join(models, 'notes'))
    folderWith(join(models, '.hidden'), 'config.json')
    folderWith(join(models, 'run-0123456789ab'), 'config.json')
    symlinkSync(join(models, 'tiny'), join(models, 'linked'))
    expect((await registry.list()).map(({ id }) => id)).toEqual(['linked', 'tiny'])
    expect(await registry.resolve('tiny')).toMatchObject({
      kind: 'base',
      root: 'tiny',
      parent: null,
      baseFolder: join(models, 'tiny'),
      adapterFolder: undefined,
    })
  })

  it('says of a folder whose name cannot be an id that it is to be renamed', async () => {
    for (const name of ['小模型', 'my model', '.hidden']) folderWith(join(models, name), 'config.json')
    expect(misnamedFolders([models]).map(({ folder }) => folder)).toEqual([
      join(models, 'my model'),
      join(models, '小模型'),
    ])
    await expect(registry.resolve('my model')).rejects.toThrow(
      /"my model" cannot be used as a model.* rename it: up to 100/,
    )
    await expect(registry.resolve('your model')).rejects.toThrow(/does not exist/)
  })

  it("finds a run's adapter and its checkpoints over the base, also while it runs", async () => {
    const outputDir = folderWith(join(open.folder, 'out'))
    const id = 'run-0123456789ab'
    const model = { id: 'tiny', baseFolder: join(models, 'tiny'), root: 'tiny' }
    await open.queue.submit({ id, kind: 'train', request: {}, resolved: { model }, outputDir })
    folderWith(join(outputDir, 'checkpoint-10'), 'adapter_model.safetensors')
    folderWith(join(outputDir, 'checkpoint-9'), 'adapter_model.safetensors')
    folderWith(join(outputDir, 'checkpoint-7'))
    await expect(registry.resolve(id)).rejects.toThrow(/no model to use yet \(it is queued\).*ckpt-step/)
    expect(await registry.resolve(`${id}:ckpt-step-9`)).toMatchObject({
      kind: 'checkpoint',
      baseFolder: join(models, 'tiny'),
      adapterFolder: join(outputDir, 'checkpoint-9'),
      parent: id,
      root: 'tiny',
    })
    await open.queue.claim('train', self)
    await open.queue.settle(id, { status: 'succeeded', result: {} })
    folderWith(outputDir, 'adapter_model.safetensors')
    expect((await registry.list()).map((entry) => entry.id)).toEqual([
      'tiny',
      id,
      `${id}:ckpt-step-10`,
      `${id}:ckpt-step-9`,
    ])
  })

  it('takes a fully trained run, a merge and an export as whole models with their lineage', async () => {
    const run = folderWith(join(open.folder, 'full'), 'config.json')
    const merge = folderWith(join(open.folder, 'merged'), 'config.json')
    await finished('run-00000000000a', 'train', run)
    await finished('merge-00000000000b', 'merge', merge, {
      model: { id: 'run-00000000000a', baseFolder: run, root: 'tiny' },
    })
    expect(await registry.resolve('run-00000000000a')).toMatchObject({
      baseFolder: run,
      adapterFolder: undefined,
    })
    expect(await registry.resolve('merge-00000000000b')).toMatchObject({
      kind: 'merge',
      baseFolder: merge,
      parent: 'run-00000000000a',
      root: 'tiny',
    })
  })

  it.each(['../tiny', 'tiny/../tiny', '/etc', 'tiny\0', '', '.', 'tiny:ckpt-step-x', 'x'.repeat(500)])(
    'does not take %j for a model',
    async (id) => {
      await expect(registry.resolve(id)).rejects.toMatchObject({ kind: 'not_found', code: 'model_not_found' })
    },
  )

  it('names models whose ids look alike', async () => {
    await expect(registry.resolve('tinny')).rejects.toThrow(/Did you mean tiny\?/)
    await expect(registry.resolve('zzz')).rejects.toThrow(/Known: tiny\./)
  })

  it('gives what lies in a folder to the last job that was given it', async () => {
    const outputDir = folderWith(join(open.folder, 'out'), 'adapter_model.safetensors')
    folderWith(join(outputDir, 'checkpoint-5'), 'adapter_model.safetensors')
    await finished('run-00000000000a', 'train', outputDir)
    expect((await registry.resolve('run-00000000000a')).adapterFolder).toBe(outputDir)
    await finished('run-00000000000b', 'train', outputDir)
    const ids = (await registry.list()).map(({ id }) => id)
    expect(ids).toEqual(['tiny', 'run-00000000000b', 'run-00000000000b:ckpt-step-5'])
    for (const id of ['run-00000000000a', 'run-00000000000a:ckpt-step-5'])
      await expect(registry.resolve(id)).rejects.toThrow(
        /run-00000000000a was taken over by run-00000000000b/,
      )
  })
})
