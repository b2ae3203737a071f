import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { initializeLora } from '../../../engine/adapter/initialize.ts'
import { packBase } from '../../../engine/quant/packed-base.ts'
import { readWeight, type WeightScheme } from '../../../engine/quant/packed-layout.ts'
import {
  type BaseModel,
  baseLinearModules,
  baseParameterCount,
  openBase,
} from '../../../engine/quant/source.ts'
import { collate } from '../../../engine/text/batch.ts'
import { CompiledStep } from '../../../engine/train/compiled-step.ts'
import { createRandom } from '../../../engine/train/random.ts'
import { decodeFloat32, encodeFloat32 } from '../../../engine/weights/dtypes.ts'
import { WeightFolder, writeSafetensors } from '../../../engine/weights/safetensors.ts'
import { tinyLlama } from '../../src/engine-host/tiny-llama.ts'

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

/** A folder with random GPTQ or AWQ codes in place of the linear weights, and the weights that those stand for. */
function quantizedFolder(method: 'gptq' | 'awq', actOrder = false) {
  const folder = folderOf(`${method}-${actOrder}`)
  cpSync(source, folder, { recursive: true })
  const config = JSON.parse(readFileSync(join(source, 'config.json'), 'utf8')) as Record<string, unknown>
  const groupSize = 8
  const quantization_config = { quant_method: method, bits: 4, group_size: groupSize, version: 'gemm' }
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, quantization_config }))
  const base = openBase(source)
  const linear = new Map(baseLinearModules(base).map((module) => [`${module.path}.weight`, module]))
  const random = createRandom(4)
  const dense = new Map<string, Float32Array>()
  const tensors = [...base.weights.entries.values()].flatMap(({ name, dtype, shape }) => {
    const module = linear.get(name)
    if (!module) return [{ name, dtype, shape, data: base.weights.readRaw(name) }]
    const { path, inFeatures, outFeatures } = module
    const groups = inFeatures / groupSize
    const groupIndex = Int32Array.from({ length: inFeatures }, (_, k) =>
      actOrder ? k % groups : Math.floor(k / groupSize),
    )
    const codes = Uint8Array.from({ length: inFeatures * outFeatures }, () => random.nextInt(16))
    const zeros = Uint8Array.from({ length: groups * outFeatures }, () => 1 + random.nextInt(15))
    const exact = Float32Array.from({ length: groups * outFeatures }, () => 0.01 + 0.02 * random.next())
    const scales = encodeFloat32(exact, 'float16')
    const rounded = decodeFloat32(scales, 'float16')
    dense.set(
      name,
      Float32Array.from({ length: inFeatures * outFeatures }, (_, i) => {
        const [n, k] = [Math.floor(i / inFeatures), i % inFeatures]
        const place = groupIndex[k]! * outFeatures + n
        return (codes[k * outFeatures + n]! - zeros[place]!) * rounded[place]!
      }),
    )
    const words = (rows: number, columns: number) => new Int32Array(rows * columns)
    const awqNibble = (n: number) => ((n & 1) << 2) | ((n & 7) >> 1)
    const qzeros = words(groups, outFeatures / 8)
    zeros.forEach((zero, i) => {
      const stored = method === 'gptq' ? zero - 1 : zero
      qzeros[i >> 3]! |= stored << (4 * (method === 'gptq' ? i & 7 : awqNibble(i)))
    })
    const qweight = words(inFeatures, outFeatures / 8)
    codes.forEach((code, i) => {
      const [k, n] = [Math.floor(i / outFeatures), i % outFeatures]
      if (method === 'gptq') qweight[(k >> 3) * outFeatures + n]! |= code << (4 * (k & 7))
      else qweight[i >> 3]! |= code << (4 * awqNibble(n))
    })
    const int32 = (values: Int32Array) => new Uint8Array(values.buffer)
    const qshape = method === 'gptq' ? [inFeatures / 8, outFeatures] : [inFeatures, outFeatures / 8]
    return [
      { name: `${path}.qweight`, dtype: 'I32' as const, shape: qshape, data: int32(qweight) },
      {
        name: `${path}.qzeros`,
        dtype: 'I32' as const,
        shape: [groups, outFeatures / 8],
        data: int32(qzeros),
      },
      { name: `${path}.scales`, dtype: 'F16' as const, shape: [groups, outFeatures], data: scales },
      ...(method === 'gptq'
        ? [{ name: `${path}.g_idx`, dtype: 'I32' as const, shape: [inFeatures], data: int32(groupIndex) }]
        : []),
    ]
  })
  writeSafetensors(join(folder, 'model.safetensors'), tensors)
  return { folder, dense }
}

describe.each([
  ['gptq', false],
  ['gptq', true],
  ['awq', false],
] as const)('a base that comes as %s, act-order %s', (method, actOrder) => {
  it('has the weights that its codes stand for, and trains over them', async () => {
    const { folder, dense } = quantizedFolder(method, actOrder)
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
