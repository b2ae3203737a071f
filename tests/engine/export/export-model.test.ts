import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { exportModel, type ModelExport } from '../../../engine/export/export-model.ts'
import type { ExportReport } from '../../../engine/export/report.ts'
import { importGguf } from '../../../engine/gguf/import.ts'
import { openModel } from '../../../engine/models/index.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { WeightFolder } from '../../../engine/weights/safetensors.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'
import { DoomedDisk } from '../weights/doomed-disk.ts'

const TEXT = readFileSync(new URL('../../../data/small_world.jsonl', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .map((line) => (JSON.parse(line) as { text: string }).text)
  .join(' ')

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'anneal-export-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

function windows(count: number, length: number) {
  const tokens = loadTokenizer(ANNEAL_TINY).encode(TEXT)
  return Array.from({ length: count }, (_, index) => tokens.slice(index * length, (index + 1) * length))
}

function options(changes: Partial<ModelExport>): ModelExport {
  return {
    model: 'anneal-tiny',
    modelFolder: ANNEAL_TINY,
    outputFolder: join(folder, 'out'),
    workFolder: join(folder, '.work'),
    format: 'gptq',
    bits: 4,
    dtype: 'float16',
    shardBytes: 5e9,
    ggufType: undefined,
    method: 'gptq',
    groupSize: 64,
    symmetric: true,
    actOrder: false,
    damping: 0.05,
    seed: 42,
    calibration: { dataset: 'small_world', windows: windows(6, 48) },
    text: { dataset: 'small_world', windows: windows(4, 64) },
    maxKld: undefined,
    threads: 1,
    ...changes,
  }
}

const report = () => JSON.parse(readFileSync(join(folder, 'out/report.json'), 'utf8')) as ExportReport

describe('exportModel', () => {
  it('says how much it needs where the disk fills up meanwhile, and leaves nothing', async () => {
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
    const plain = {
      format: 'gguf',
      bits: 16,
      ggufType: 'BF16',
      method: undefined,
      neededBytes: 7_936_000,
    } as const
    let error: unknown
    await new DoomedDisk(folder, 4, full).run(() =>
      exportModel(options(plain)).catch((reason) => {
        error = reason
        throw reason
      }),
    )
    expect(error).toMatchObject({
      code: 'disk_full',
      message: expect.stringMatching(/is full: 7936000 bytes are needed in all, and \d+ are free now/),
    })
    expect(readdirSync(folder)).toEqual([])
  })

  it('writes GPTQ that this engine opens, with a report', async () => {
    const manifest = await exportModel(options({}))
    const paths = manifest.files.map(({ path }) => path)
    expect(paths).toEqual(
      expect.arrayContaining(['config.json', 'model.safetensors', 'quantize_config.json', 'report.md']),
    )
    const weights = WeightFolder.open(join(folder, 'out'))
    expect(weights.entry('model.layers.0.mlp.down_proj.qweight')).toMatchObject({
      dtype: 'I32',
      shape: [80, 256],
    })
    expect(weights.entry('model.layers.0.mlp.down_proj.scales')).toMatchObject({
      dtype: 'F16',
      shape: [10, 256],
    })
    weights.close()
    expect(report()).toMatchObject({ method: 'gptq', bits: 4, passed: true, text: { tokens: 4 * 63 } })
    expect(report().mean_kld).toBeGreaterThan(0)
    expect(existsSync(join(folder, '.work'))).toBe(false)
  })

  it('keeps the report alone when the divergence is above max_kld', async () => {
    const exporting = exportModel(options({ method: 'rtn', calibration: undefined, maxKld: 1e-6 }))
    await expect(exporting).rejects.toMatchObject({ code: 'kld_too_high', param: 'max_kld' })
    expect(readdirSync(join(folder, 'out')).sort()).toEqual([
      'SHA256SUMS',
      'manifest.json',
      'report.json',
      'report.md',
    ])
    expect(report()).toMatchObject({ passed: false, max_kld: 1e-6 })
  })

  it('goes on at the layer that a stopped export reached, and ends alike', async () => {
    await exportModel(options({ outputFolder: join(folder, 'whole') }))
    const stop = new AbortController()
    const stopped = options({
      signal: stop.signal,
      onProgress: ({ message }) => message === 'layer 2 of 5' && stop.abort(),
    })
    await expect(exportModel(stopped)).rejects.toMatchObject({ kind: 'cancelled' })
    expect(existsSync(join(folder, 'out'))).toBe(false)
    const seen: string[] = []
    await exportModel(options({ onProgress: ({ message }) => seen.push(message) }))
    expect(seen).not.toContain('layer 2 of 5')
    expect(seen).toContain('layer 3 of 5')
    const weights = (name: string) => readFileSync(join(folder, name, 'model.safetensors'))
    expect(weights('out').equals(weights('whole'))).toBe(true)
  })

  it.skipIf(!existsSync('/dev/full')).each([0, 1])(
    'says what it needs and what is free when the disk is full at the states in front of layer %i',
    async (layer) => {
      mkdirSync(join(folder, '.work'))
      symlinkSync('/dev/full', join(folder, `.work/hidden-${layer}.f32.part`))
      await expect(exportModel(options({}))).rejects.toMatchObject({
        kind: 'too_large',
        code: 'disk_full',
        message: expect.stringMatching(/full: \d+ bytes are needed in all, and \d+ are free now/),
      })
      expect(existsSync(join(folder, 'out'))).toBe(false)
    },
  )

  it('loses less with AWQ scaling than rounding to nearest, and divides norms by the scales', async () => {
    await exportModel(options({ method: 'rtn', outputFolder: join(folder, 'rtn') }))
    await exportModel(options({ method: 'awq' }))
    const nearest = JSON.parse(readFileSync(join(folder, 'rtn/report.json'), 'utf8')) as ExportReport
    expect(report().mean_kld).toBeLessThan(0.9 * nearest.mean_kld)
    // With the scales that they hold, matrices would look further from the checkpoint's than they are.
    const [scaled, plain] = [report(), nearest].map(({ worst_matrices }) => worst_matrices[0]!.relative_error)
    expect(scaled).toBeLessThan(1.2 * plain!)
    const [before, after] = [openModel(ANNEAL_TINY).weights, WeightFolder.open(join(folder, 'out'))]
    const changed = [...before.entries.keys()]
      .filter((name) => name.endsWith('layernorm.weight'))
      .filter((name) => before.readFloat32(name).join() !== after.readFloat32(name).join())
    expect(changed.length).toBeGreaterThan(5)
    before.close()
    after.close()
  })

  it('writes a GGUF that comes back as the same model', async () => {
    const outputFolder = join(folder, 'gguf')
    const plain = { format: 'gguf', bits: 16, method: undefined, text: undefined } as const
    await exportModel(options({ ...plain, outputFolder, dtype: 'bfloat16', ggufType: 'BF16' }))
    const back = join(folder, 'back')
    await importGguf({ file: join(outputFolder, 'model-BF16.gguf'), outputFolder: back })
    const original = openModel(ANNEAL_TINY)
    const imported = openModel(back)
    for (const name of original.weights.entries.keys()) {
      const [before, after] = [original, imported].map(({ weights }) => weights.readRaw(name))
      expect(Buffer.compare(before!, after!)).toBe(0)
    }
    expect(imported.config).toEqual(original.config)
    expect(loadTokenizer(back).encode(TEXT)).toEqual(loadTokenizer(ANNEAL_TINY).encode(TEXT))
    expect(loadTokenizer(back).chatTemplate).toBe(loadTokenizer(ANNEAL_TINY).chatTemplate)
    original.weights.close()
    imported.weights.close()
  })

  it.each(['Q8_0', 'Q4_0', 'Q4_1', 'Q4_K_M'] as const)('measures what %s costs', async (ggufType) => {
    const bits = ggufType === 'Q8_0' ? 8 : 4
    await exportModel(options({ format: 'gguf', bits, method: 'rtn', calibration: undefined, ggufType }))
    const { mean_kld: divergence, same_top_token: same, size } = report()
    expect(divergence).toBeGreaterThan(0)
    expect(divergence).toBeLessThan(bits === 8 ? 0.005 : 0.5)
    expect(same).toBeGreaterThan(bits === 8 ? 0.95 : 0.6)
    expect(size.after).toBeLessThan(size.before * (bits === 8 ? 0.6 : 0.5))
  })

  it.each(['Q4_0', 'Q4_1', 'Q4_K_M'] as const)(
    'writes %s rounded by GPTQ, which loses far less',
    async (ggufType) => {
      const gguf = { format: 'gguf', ggufType } as const
      await exportModel(
        options({ ...gguf, method: 'rtn', calibration: undefined, outputFolder: join(folder, 'rtn') }),
      )
      await exportModel(options({ ...gguf, method: 'gptq' }))
      const nearest = JSON.parse(readFileSync(join(folder, 'rtn/report.json'), 'utf8')) as ExportReport
      expect(report()).toMatchObject({ method: 'gptq', gguf_type: ggufType, calibration: { samples: 6 } })
      expect(report().mean_kld).toBeLessThan(0.5 * nearest.mean_kld)
      expect(report().size).toEqual(nearest.size)
      expect(existsSync(join(folder, '.work'))).toBe(false)
    },
  )

  it('gives Ollama a Modelfile with template, stops and context', async () => {
    const plain = { format: 'ollama', bits: 16, method: undefined, text: undefined } as const
    await exportModel(options({ ...plain, dtype: 'float16', ggufType: 'F16' }))
    const lines = readFileSync(join(folder, 'out/Modelfile'), 'utf8').split('\n')
    expect(lines[0]).toBe('FROM ./model-F16.gguf')
    expect(lines).toContain('PARAMETER num_ctx 512')
    expect(lines.some((line) => line.startsWith('PARAMETER stop '))).toBe(true)
  })
})
