import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { readManifest } from '../../../engine/export/manifest.ts'
import { exportSafetensors } from '../../../engine/export/safetensors.ts'
import { decodeFloat32, encodeFloat32, type WeightDType } from '../../../engine/weights/dtypes.ts'
import { WeightFolder } from '../../../engine/weights/safetensors.ts'
import { DTYPE_NAMES, scratchFolder, type TinyModelOptions, writeTinyModel } from '../weights/tiny-model.ts'

let scratch: string
let folders: { modelFolder: string; outputFolder: string }
beforeEach(() => {
  scratch = scratchFolder()
  folders = { modelFolder: join(scratch, 'model'), outputFolder: join(scratch, 'out') }
})
afterEach(() => rmSync(scratch, { recursive: true }))

const prepare = (options: TinyModelOptions = {}) => writeTinyModel(folders.modelFolder, options)
const readConfig = () => JSON.parse(readFileSync(join(folders.outputFolder, 'config.json'), 'utf8'))

describe('exportSafetensors', () => {
  it.each<WeightDType>(['float32', 'float16', 'bfloat16'])(
    'casts every weight to %s, and config.json says so',
    async (dtype) => {
      prepare({ dtype: 'float32' })
      await exportSafetensors({ ...folders, dtype })
      const before = WeightFolder.open(folders.modelFolder)
      const after = WeightFolder.open(folders.outputFolder)
      for (const { name } of before.entries.values()) {
        expect(after.entry(name).dtype).toBe(DTYPE_NAMES[dtype])
        const expected = decodeFloat32(encodeFloat32(before.readFloat32(name), dtype), dtype)
        expect(after.readFloat32(name)).toEqual(expected)
      }
      before.close()
      after.close()
      expect(readConfig()).toEqual({ model_type: 'llama', torch_dtype: dtype, tie_word_embeddings: false })
    },
  )

  it('changes dtype under the key that the config has', async () => {
    prepare({ config: { torch_dtype: undefined, dtype: 'bfloat16' } })
    await exportSafetensors({ ...folders, dtype: 'float16' })
    expect(readConfig()).toMatchObject({ dtype: 'float16' })
    expect(readConfig()).not.toHaveProperty('torch_dtype')
  })

  it('leaves the fractions of config.json fractions, as transformers takes no others for some fields', async () => {
    prepare()
    const path = join(folders.modelFolder, 'config.json')
    const text = readFileSync(path, 'utf8').replace(/}$/, ', "final_logit_softcapping": 30.0}')
    writeFileSync(path, text)
    await exportSafetensors({ ...folders, dtype: 'float16' })
    const written = readFileSync(join(folders.outputFolder, 'config.json'), 'utf8')
    expect(written).toContain('"final_logit_softcapping": 30.0')
    expect(readConfig()).toMatchObject({ torch_dtype: 'float16' })
  })

  it('lists each file with its size and SHA-256 in manifest.json and SHA256SUMS', async () => {
    prepare()
    const manifest = await exportSafetensors({ ...folders, dtype: 'bfloat16', shardBytes: 250 })
    expect(readManifest(folders.outputFolder)).toEqual(manifest)
    const names = readdirSync(folders.outputFolder).filter((name) => name !== 'manifest.json')
    expect(manifest.files.map(({ path }) => path).sort()).toEqual(names.sort())
    expect(names).toContain('model-00001-of-00003.safetensors')
    const sums = readFileSync(join(folders.outputFolder, 'SHA256SUMS'), 'utf8')
    for (const { path, bytes, sha256 } of manifest.files) {
      const content = readFileSync(join(folders.outputFolder, path))
      expect(content.length).toBe(bytes)
      expect(createHash('sha256').update(content).digest('hex')).toBe(sha256)
      if (path !== 'SHA256SUMS') expect(sums).toContain(`${sha256}  ${path}\n`)
    }
  })

  it('exports an export again without its manifest', async () => {
    prepare()
    const first = await exportSafetensors({ ...folders, dtype: 'bfloat16' })
    const again = await exportSafetensors({
      modelFolder: folders.outputFolder,
      outputFolder: join(scratch, 'again'),
      dtype: 'bfloat16',
    })
    expect(again).toEqual(first)
  })

  it('names the tensor that float16 cannot hold', async () => {
    prepare({ values: { 'model.norm.weight': new Float32Array(8).fill(70_144) } })
    await expect(exportSafetensors({ ...folders, dtype: 'float16' })).rejects.toThrow(
      'model.norm.weight has 70144 at element 0, beyond the largest float16, 65504; bfloat16 and float32 hold more',
    )
    expect(readdirSync(scratch)).toEqual(['model'])
  })

  it('reports progress up to the end', async () => {
    prepare()
    const parts: number[] = []
    await exportSafetensors({
      ...folders,
      dtype: 'float32',
      onProgress: ({ done, total }) => parts.push(done / total),
    })
    expect(parts).toEqual([...parts].sort((a, b) => a - b))
    expect(parts[0]).toBeLessThan(0.5)
    expect(parts.at(-1)).toBe(1)
  })

  it('leaves nothing when it is cancelled after the last weight', async () => {
    prepare()
    const controller = new AbortController()
    const exporting = exportSafetensors({
      ...folders,
      dtype: 'bfloat16',
      signal: controller.signal,
      onProgress: ({ done, total }) => done === total && controller.abort(),
    })
    await expect(exporting).rejects.toMatchObject({ kind: 'cancelled' })
    expect(readdirSync(scratch)).toEqual(['model'])
  })
})
