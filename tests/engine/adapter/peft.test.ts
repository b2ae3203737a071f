import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { readAdapter, writeAdapter } from '../../../engine/adapter/peft.ts'
import { EngineError } from '../../../engine/errors.ts'
import { writeSafetensors } from '../../../engine/weights/safetensors.ts'
import { NEEDS_SHARED, SHARED, sharedMissing } from '../../shared.ts'
import { scratchFolder } from '../weights/tiny-model.ts'
import { randomAdapter } from './lora.ts'

let folder: string
beforeEach(() => {
  folder = scratchFolder()
})
afterEach(() => rmSync(folder, { recursive: true }))

const configPath = () => join(folder, 'adapter_config.json')

function editConfig(fields: Record<string, unknown>): void {
  const config = JSON.parse(readFileSync(configPath(), 'utf8'))
  writeFileSync(configPath(), JSON.stringify({ ...config, ...fields }))
}

describe('writeAdapter', () => {
  it('writes what readAdapter reads', () => {
    const adapter = randomAdapter()
    writeAdapter(folder, adapter)
    const read = readAdapter(folder)
    expect(read.config).toEqual(adapter.config)
    expect([...read.modules.values()].map(({ scale }) => scale)).toEqual([2, 2])
    expect(new Map([...read.modules].sort())).toEqual(new Map([...adapter.modules].sort()))
    expect(readdirSync(folder).sort()).toEqual(['adapter_config.json', 'adapter_model.safetensors'])
  })
})

describe('readAdapter', () => {
  it('divides alpha by the root of the rank for rank-stabilized LoRA', () => {
    writeAdapter(folder, randomAdapter(undefined, { use_rslora: true }))
    for (const { scale } of readAdapter(folder).modules.values()) {
      expect(scale).toBeCloseTo(6 / Math.sqrt(3), 12)
    }
  })

  it.each<[string, unknown]>([
    ['peft_type', 'IA3'],
    ['task_type', 'SEQ_CLS'],
    ['lora_bias', true],
    ['bias', 'all'],
    ['fan_in_fan_out', true],
    ['layer_replication', [[0, 4]]],
    ['init_lora_weights', 'pissa'],
    ['a_field_of_the_future', 3],
  ])('refuses %s = %j by name', (field, value) => {
    writeAdapter(folder, randomAdapter())
    editConfig({ [field]: value })
    expect(() => readAdapter(folder)).toThrow(expect.objectContaining({ kind: 'unsupported', param: field }))
  })

  it('lets fields pass that say how an adapter was made', () => {
    writeAdapter(folder, randomAdapter())
    editConfig({
      peft_version: '0.21.2',
      init_lora_weights: 'gaussian',
      a_field_of_the_future: null,
      lora_bias: false,
    })
    expect(readAdapter(folder).modules.size).toBe(2)
  })

  it('names every wrong field of the config', () => {
    writeAdapter(folder, randomAdapter())
    editConfig({ r: 0, lora_alpha: 'x' })
    expect(() => readAdapter(folder)).toThrow(/r: .*; lora_alpha: /)
  })

  it.each(['', '[]', '{"r": 8}', 'null'])('refuses %j as config', (content) => {
    writeAdapter(folder, randomAdapter())
    writeFileSync(configPath(), content)
    expect(() => readAdapter(folder)).toThrow(EngineError)
  })

  it('only ever fails with an EngineError, whatever the fields hold', () => {
    writeAdapter(folder, randomAdapter())
    const original = readFileSync(configPath(), 'utf8')
    const field = fc.constantFrom(...Object.keys(JSON.parse(original)), '__proto__', 'new')
    fc.assert(
      fc.property(fc.dictionary(field, fc.jsonValue({ maxDepth: 2 }), { maxKeys: 3 }), (fields) => {
        writeFileSync(configPath(), original)
        editConfig(fields)
        try {
          for (const { scale } of readAdapter(folder).modules.values()) expect(scale).toBeGreaterThan(0)
        } catch (error) {
          expect(error).toBeInstanceOf(EngineError)
        }
      }),
      { seed: 10, numRuns: 200 },
    )
  })

  it('collects every bad tensor in one error', () => {
    writeAdapter(folder, randomAdapter())
    const float = (name: string, ...shape: number[]) => {
      const count = shape.reduce((product, dim) => product * dim, 1)
      return {
        name: `base_model.model.${name}`,
        dtype: 'F32' as const,
        shape,
        data: new Uint8Array(4 * count),
      }
    }
    writeSafetensors(join(folder, 'adapter_model.safetensors'), [
      float('q.lora_A.weight', 2, 8),
      float('q.lora_B.weight', 6, 3),
      float('k.lora_A.weight', 3, 8),
      float('v.lora_magnitude_vector', 6),
      { ...float('o.lora_A.weight', 3, 1), dtype: 'I32' },
      float('o.lora_B.weight', 6, 3, 1),
    ])
    const message = (() => {
      try {
        readAdapter(folder)
        return ''
      } catch (error) {
        return String(error)
      }
    })()
    expect(message).toMatch(/q\.lora_A\.weight has shape \[2,8\], expected \[r, in\] with r = 3/)
    expect(message).toMatch(/there is no base_model\.model\.k\.lora_B\.weight/)
    expect(message).toMatch(/v has a magnitude, but use_dora is false/)
    expect(message).toMatch(/o\.lora_A\.weight is I32/)
    expect(message).toMatch(/o\.lora_B\.weight has shape \[6,3,1\], expected \[out, r\]/)
    expect(message).not.toMatch(/q\.lora_B/)
  })

  it('says that weights are missing, and that a pickle is not read', () => {
    writeAdapter(folder, randomAdapter())
    rmSync(join(folder, 'adapter_model.safetensors'))
    writeFileSync(join(folder, 'adapter_model.bin'), '')
    expect(() => readAdapter(folder)).toThrow(/has no adapter_model\.safetensors.*is a pickle/)
    rmSync(configPath())
    expect(() => readAdapter(folder)).toThrow(/adapter_config\.json cannot be read/)
  })

  it.skipIf(sharedMissing('golden/llama'))(`keeps PEFT's own adapters as they are ${NEEDS_SHARED}`, () => {
    for (const kind of ['plain', 'dora']) {
      const adapter = readAdapter(join(SHARED, `golden/llama/adapter-${kind}-end`))
      writeAdapter(folder, adapter)
      expect(readAdapter(folder)).toEqual(adapter)
      expect(adapter.modules.size).toBe(21)
      expect([...adapter.modules.values()].every(({ magnitude }) => !magnitude === (kind === 'plain'))).toBe(
        true,
      )
    }
  })
})
