import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { writeGptq } from '../../../engine/export/gptq.ts'
import { openModel } from '../../../engine/models/index.ts'
import { unpackGptq } from '../../../engine/packed/gptq-reader.ts'
import { orderedValues } from '../../../engine/packed/ordered-values.ts'
import { quantizeModel } from '../../../engine/quant/quantize-model.ts'
import { QuantizedLayers } from '../../../engine/quant/quantized-layers.ts'
import { QuantizedSource } from '../../../engine/quant/quantized-source.ts'
import { type BaseModel, baseLinearModules, openBase } from '../../../engine/quant/source.ts'
import { readCase, writeModel } from '../../parity/families/reference-model.ts'
import { scratchFolder } from '../weights/tiny-model.ts'

const root = scratchFolder()
afterAll(() => rmSync(root, { recursive: true }))

const ROUNDING = { bits: 4, groupSize: 32, symmetric: true, actOrder: false, damping: 0.05 } as const

async function exported(name: string) {
  const model = openModel(writeModel(join(root, name), readCase(name)))
  const layers = new QuantizedLayers(join(root, `${name}-layers`), {})
  await quantizeModel(model, layers, { ...ROUNDING, method: 'rtn', calibration: [] })
  const folder = join(root, `${name}-gptq`)
  mkdirSync(folder)
  await writeGptq(folder, { ...ROUNDING, model, layers, method: 'rtn', dtype: 'float16', shardBytes: 1e9 })
  return { base: openBase(folder), source: new QuantizedSource(model.weights, layers, 'model.layers') }
}

function read({ weights }: BaseModel, path: string): Float32Array {
  const ints = (part: string) => new Int32Array(weights.readRaw(`${path}.${part}`).slice().buffer)
  const [words, outFeatures] = weights.entry(`${path}.qweight`).shape as [number, number]
  const { bits, groupSize } = ROUNDING
  const parts = { qweight: ints('qweight'), qzeros: ints('qzeros'), groupIndex: ints('g_idx') }
  const scales = weights.readFloat32(`${path}.scales`)
  return orderedValues(
    unpackGptq({
      ...parts,
      scales,
      bits,
      groupSize,
      outFeatures,
      inFeatures: 8 * words,
      zerosMinusOne: true,
    }),
  )
}

describe('writeGptq', () => {
  const mlp = 'model.layers.1.mlp'
  const modulesOf = (base: BaseModel) => baseLinearModules(base).map(({ path }) => path)

  it("parts the gate and up of phi3, as GPTQModel looks for them, and names vLLM's joined module", async () => {
    const { base, source } = await exported('phi3-partial-rotary-sliding')
    expect(modulesOf(base)).toEqual(expect.arrayContaining([`${mlp}.gate_proj`, `${mlp}.up_proj`]))
    expect([...base.weights.entries.keys()].filter((tensor) => tensor.includes('gate_up_proj'))).toEqual([])
    const [gate, up] = [read(base, `${mlp}.gate_proj`), read(base, `${mlp}.up_proj`)]
    expect(Float32Array.of(...gate, ...up)).toEqual(source.readFloat32(`${mlp}.gate_up_proj.weight`))
    expect(base.raw.quantization_config).toMatchObject({
      modules_in_block_to_quantize: [
        ['self_attn.qkv_proj'],
        ['self_attn.o_proj'],
        ['mlp.gate_up_proj'],
        ['mlp.down_proj'],
      ],
    })
  })

  it('leaves the gate and up of glm in one module, as vLLM and transformers look for it', async () => {
    const { base, source } = await exported('glm')
    const path = `${mlp}.gate_up_proj`
    expect(modulesOf(base)).toContain(path)
    expect(read(base, path)).toEqual(source.readFloat32(`${path}.weight`))
    expect(base.raw.quantization_config).not.toHaveProperty('modules_in_block_to_quantize')
  })
})
