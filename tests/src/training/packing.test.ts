import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { openBase } from '../../../engine/quant/source.ts'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import { openTrainingBase, weightScheme } from '../../../src/training/packing.ts'
import { tinyLlama } from '../engine-host/tiny-llama.ts'

const folder = tinyLlama()
const outputDir = mkdtempSync(join(tmpdir(), 'anneal-packing-'))
afterAll(() => rmSync(outputDir, { recursive: true }))

const parse = (fields: Record<string, unknown> = {}) =>
  parseTrainConfig({ model: 'm', dataset: 'd', ...fields })
const run = { outputDir, signal: new AbortController().signal, onProgress: () => {} }

/** The tiny model with a quantization_config; its weights are not looked at. */
function quantized(): string {
  const copy = join(outputDir, 'quantized')
  cpSync(folder, copy, { recursive: true })
  const config = JSON.parse(readFileSync(join(copy, 'config.json'), 'utf8')) as object
  const quantization_config = { quant_method: 'gptq', bits: 4, group_size: 32 }
  writeFileSync(join(copy, 'config.json'), JSON.stringify({ ...config, quantization_config }))
  return copy
}

describe('the base of a run', () => {
  it('is used as it stands unless bits are asked for', async () => {
    const { base, close } = await openTrainingBase(folder, parse(), run)
    expect(base.folder).toBe(folder)
    close()
  })

  it('is packed inside the run folder and gone when the run is over', async () => {
    const { base, close } = await openTrainingBase(folder, parse({ quantization_bit: 8 }), run)
    expect(base.folder.startsWith(outputDir)).toBe(true)
    expect(base.weights.metadata).toMatchObject({ scheme: 'int8' })
    close()
    expect(readdirSync(outputDir).filter((name) => name.startsWith('.base'))).toEqual([])
  })

  it('leaves nothing when packing is cancelled', async () => {
    const cancelled = { ...run, signal: AbortSignal.abort() }
    await expect(openTrainingBase(folder, parse({ quantization_bit: 4 }), cancelled)).rejects.toThrow()
    expect(readdirSync(outputDir).filter((name) => name.startsWith('.base'))).toEqual([])
  })

  it('that comes quantized keeps its bits and takes adapters only', () => {
    const base = openBase(quantized())
    expect(weightScheme(parse(), base)).toBe('int4')
    expect(weightScheme(parse({ quantization_bit: 4 }), base)).toBe('int4')
    const refused = (fields: Record<string, unknown>, param: string) =>
      expect(() => weightScheme(parse(fields), base)).toThrow(expect.objectContaining({ param }))
    refused({ quantization_bit: 8 }, 'quantization_bit')
    refused({ finetuning_type: 'full' }, 'finetuning_type')
    base.weights.close()
  })
})
