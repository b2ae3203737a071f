import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { loadSettings, packageRoot } from '../../src/settings.ts'

function folderWith(config?: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'anneal-settings-'))
  if (config !== undefined)
    writeFileSync(join(folder, 'wrangler-free.config.ts'), `export default ${config}\n`)
  return folder
}

describe('loadSettings', () => {
  it('takes the package config where the working directory has none', async () => {
    const settings = await loadSettings({ env: {}, cwd: folderWith() })
    expect(settings.configFile).toBe(join(packageRoot, 'wrangler-free.config.ts'))
    expect(settings.directories.models).toEqual([join(packageRoot, 'data/models')])
    expect(settings.database).toBe(join(packageRoot, 'saves/anneal.db'))
    expect(settings.server).toMatchObject({ host: '127.0.0.1', port: 8000, apiKeys: [] })
  })

  it('takes the config of the working directory, with paths from its folder', async () => {
    const cwd = folderWith(`{ directories: { saves: 'out' }, server: { port: 9001 } }`)
    const settings = await loadSettings({ env: {}, cwd })
    expect(settings.directories).toEqual({
      models: [join(cwd, 'data/models')],
      datasets: join(cwd, 'data'),
      saves: join(cwd, 'out'),
    })
    expect(settings.database).toBe(join(cwd, 'out/anneal.db'))
    expect(settings.server.port).toBe(9001)
  })

  it('lets ANNEAL_CONFIG name another file', async () => {
    const folder = folderWith(`{ logLevel: 'warn' }`)
    const env = { ANNEAL_CONFIG: 'wrangler-free.config.ts' }
    expect((await loadSettings({ env, cwd: folder })).logLevel).toBe('warn')
    await expect(loadSettings({ env: { ANNEAL_CONFIG: 'no.ts' }, cwd: folder })).rejects.toMatchObject({
      code: 'config_not_found',
    })
  })

  it('lets a variable override the file, with paths from the working directory', async () => {
    const cwd = folderWith(`{ server: { port: 9001 } }`)
    const env = { ANNEAL_PORT: '9002', ANNEAL_SAVES_DIR: 'elsewhere', ANNEAL_API_KEY: 'secret' }
    const settings = await loadSettings({ env, cwd })
    expect(settings.server.port).toBe(9002)
    expect(settings.directories.saves).toBe(join(cwd, 'elsewhere'))
    expect(settings.database).toBe(join(cwd, 'elsewhere/anneal.db'))
    expect(settings.server.apiKeys).toEqual([
      '2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b',
    ])
  })

  it.each([
    ['{ limits: { uploadBytes: "big" } }', {}, 'limits.uploadBytes'],
    ['{ server: { prot: 1 } }', {}, 'server'],
    ['{ policy: { allowedBits: [4] } }', {}, 'policy.allowedBits'],
    ['{ server: { apiKeys: ["plain"] } }', {}, 'server.apiKeys.0'],
    [`{ server: { apiKeys: [{ sha256: "${'a'.repeat(64)}", scopes: ["all"] }] } }`, {}, 'server.apiKeys.0'],
    ['{ server: { host: "0.0.0.0" } }', {}, 'server.apiKeys'],
    ['{ device: "gpu" }', {}, 'device'],
    ['{ chat: { device: "cuda:x" } }', {}, 'chat.device'],
    ['{ chat: { modelDevices: { big: "webgpu:1" } } }', {}, 'chat.modelDevices.big'],
    ['{}', { ANNEAL_DEVICE: 'tpu' }, 'device'],
    ['{}', { ANNEAL_PORT: 'http' }, 'server.port'],
    ['{}', { ANNEAL_PROT: '1' }, 'ANNEAL_PROT'],
  ])('refuses %s with %o, naming %s', async (config, env, param) => {
    const error = await loadSettings({ env, cwd: folderWith(config) }).catch((reason) => reason)
    expect(error).toMatchObject({ kind: 'invalid', param })
    expect(error.message).toContain(param)
  })

  it('refuses a file that does not parse, naming it', async () => {
    const cwd = folderWith('{ directories: ')
    await expect(loadSettings({ env: {}, cwd })).rejects.toMatchObject({ code: 'config_unreadable' })
  })
})
