import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { AdapterCache } from '../../../engine/generate/adapter-cache.ts'
import type { DecoderAdapter } from '../../../engine/generate/decoder.ts'

let root: string
let loads: string[]
const decoder = {
  async loadAdapter(folder: string): Promise<DecoderAdapter> {
    loads.push(folder)
    return { folder, load: loads.length } as unknown as DecoderAdapter
  },
}

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'anneal-adapters-'))
  loads = []
})
afterEach(() => rmSync(root, { recursive: true }))

function adapterFolder(weights = 'weights'): string {
  const folder = mkdtempSync(join(root, 'adapter-'))
  writeFileSync(join(folder, 'adapter_config.json'), '{}')
  writeFileSync(join(folder, 'adapter_model.safetensors'), weights)
  return folder
}

describe('AdapterCache', () => {
  it('loads a folder once', async () => {
    const cache = new AdapterCache(decoder)
    const folder = adapterFolder()
    expect(await cache.get(folder)).toBe(await cache.get(folder))
    expect(loads).toEqual([folder])
  })

  it('loads a folder again when its weights were written anew', async () => {
    const cache = new AdapterCache(decoder)
    const folder = adapterFolder()
    const before = await cache.get(folder)
    writeFileSync(join(folder, 'adapter_model.safetensors'), 'changed') // as many bytes as before
    utimesSync(join(folder, 'adapter_model.safetensors'), 1, 2)
    expect(await cache.get(folder)).not.toBe(before)
    expect(loads).toHaveLength(2)
  })

  it('forgets the adapter that was used longest ago', async () => {
    const cache = new AdapterCache(decoder, 2)
    const [a, b, c] = [adapterFolder(), adapterFolder(), adapterFolder()] as [string, string, string]
    for (const folder of [a, b, a, c, a, b]) await cache.get(folder)
    expect(loads).toEqual([a, b, c, b])
  })

  it('says which file is missing', async () => {
    const folder = adapterFolder()
    rmSync(join(folder, 'adapter_model.safetensors'))
    await expect(new AdapterCache(decoder).get(folder)).rejects.toMatchObject({
      kind: 'not_found',
      message: expect.stringContaining('adapter_model.safetensors'),
    })
  })
})
