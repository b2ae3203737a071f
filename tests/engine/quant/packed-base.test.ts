import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { initializeLora } from '../../../engine/adapter/initialize.ts'
import { readWeight, type WeightScheme } from '../../../engine/packed/layout.ts'
import { packBase } from '../../../engine/quant/packed-base.ts'
import {
  type BaseModel,
  baseLinearModules,
  baseParameterCount,
  openBase,
} from '../../../engine/quant/source.ts'
import { collate } from '../../../engine/train/batch.ts'
import { CompiledStep } from '../../../engine/train/compiled-step.ts'
import { encodeFloat32 } from '../../../engine/weights/dtypes.ts'
import { WeightFolder, writeSafetensors } from '../../../engine/weights/safetensors.ts'
import { tinyLlama } from '../../src/engine-host/tiny-llama.ts'
import { quantizedFolder } from './quantized-folder.ts'

const source = tinyLlama()
const scratch = mkdtempSync(join(tmpdir(), 'anneal-packed-'))
afterAll(() => rmSync(scratch, { recursive: true }))

const folderOf = (name: string) => join(scratch, name)
const pack = (name: string, scheme: WeightScheme, base = openBase(source)) =>
  packBase(base, { scheme, folder: folderOf(name) })

/** The same model with its weights widened to float32 tensors in an ordinary folder. */
function widened(name: string, base: BaseModel): BaseModel {
  const folder = folderOf(`${name}-wide`)
  cpSync(source, folder, { recursive: true })
  const { entries } = WeightFolder.open(source)
  const tensors = [...entries.values()].map(({ name: tensor, shape }) => {
    const data = encodeFloat32(readWeight(base.weights, tensor), 'float32')
    return { name: tensor, dtype: 'F32' as const, shape, data }
  })
  writeSafetensors(join(folder, 'model.safetensors'), tensors)
  return openBase(folder)
}

const batch = collate(
  [12, 9].map((length) => {
    const inputIds = Int32Array.from({ length }, (_, i) => 97 + ((i * 5) % 26))
    return { inputIds, labels: inputIds }
  }),
  0,
)

async function stepOf(base: BaseModel, checkpointing: boolean) {
  const step = await CompiledStep.create(base, {
    method: { kind: 'lora', rank: 2, scale: 2, dropout: 0, targets: 'all' },
    maxLength: 16,
    checkpointing,
    initialize: (name, shape) => initializeLora(3)(name.replace('lora_B', 'lora_A'), shape),
  })
  try {
    return await step.run(batch, 1 / batch.labels.length)
  } finally {
    await step.release()
  }
}

describe.each(['nf4', 'fp4', 'int4', 'int8'] as const)('a base packed as %s', (scheme) => {
  it.each([false, true])(
    'trains as its dequantized weights would, checkpointing %s',
    async (checkpointing) => {
      const packed = await pack(`${scheme}-${checkpointing}`, scheme)
      const expected = await stepOf(widened(`${scheme}-${checkpointing}`, packed), false)
      const { loss, gradients } = await stepOf(packed, checkpointing)
      expect(Math.abs(loss - expected.loss)).toBeLessThan(1e-4 * expected.loss)
      for (const [index, gradient] of gradients.entries()) {
        const largest = Math.max(...expected.gradients[index]!.map(Math.abs))
        for (const [i, value] of gradient.entries()) {
          expect(Math.abs(value - expected.gradients[index]![i]!)).toBeLessThan(
            1e-4 * Math.max(largest, 1e-3),
          )
        }
      }
    },
  )
})

it('packing keeps everything but the linear weights as it is, and its file is smaller', async () => {
  const base = openBase(source)
  const packed = await pack('kept', 'nf4')
  for (const name of ['model.embed_tokens.weight', 'model.norm.weight']) {
    expect(packed.weights.readRaw(name)).toEqual(base.weights.readRaw(name))
  }
  const linear = baseLinearModules(base).map(({ path }) => `${path}.weight`)
  expect(linear.every((name) => !packed.weights.has(name) && packed.weights.has(`${name}.codes`))).toBe(true)
})

it('a cancelled packing leaves no file', async () => {
  const options = { scheme: 'int8', folder: folderOf('cancelled'), signal: AbortSignal.abort() } as const
  await expect(packBase(openBase(source), options)).rejects.toThrow()
  expect(() => WeightFolder.open(folderOf('cancelled'))).toThrow(/neither/)
})

describe.each([
  ['gptq', false],
  ['gptq', true],
  ['awq', false],
] as const)('a base that comes as %s, act-order %s', (method, actOrder) => {
  it('has the weights that its codes stand for, and trains over them', async () => {
    const { folder, dense } = quantizedFolder(folderOf(`${method}-${actOrder}`), method, actOrder)
    const base = openBase(folder)
    expect(baseParameterCount(base)).toBe(baseParameterCount(openBase(source)))
    const packed = await pack(`${method}-${actOrder}-packed`, 'nf4', base)
    for (const [name, values] of dense) expect(readWeight(packed.weights, name)).toEqual(values)
    const expected = await stepOf(widened(`${method}-${actOrder}`, packed), false)
    const { loss } = await stepOf(packed, true)
    expect(Math.abs(loss - expected.loss)).toBeLessThan(1e-4 * expected.loss)
  })
})

it('methods and variants that are not read are refused by the name of their field', () => {
  const folder = folderOf('refused')
  cpSync(source, folder, { recursive: true })
  const config = JSON.parse(readFileSync(join(source, 'config.json'), 'utf8')) as Record<string, unknown>
  const refuses = (quantization_config: Record<string, unknown>, field: string) => {
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, quantization_config }))
    expect(() => openBase(folder)).toThrow(expect.objectContaining({ param: `quantization_config.${field}` }))
  }
  refuses({ quant_method: 'hqq', bits: 4, group_size: 64 }, 'quant_method')
  refuses({ quant_method: 'gptq', bits: 3, group_size: 64 }, 'bits')
  refuses({ quant_method: 'gptq', bits: 4, group_size: 64, checkpoint_format: 'marlin' }, 'checkpoint_format')
  refuses({ quant_method: 'awq', bits: 4, group_size: 64, version: 'gemv' }, 'version')
})
