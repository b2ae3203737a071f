import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { initializeLora } from '../../engine/adapter/initialize.ts'
import { addProduct, mergeAdapter } from '../../engine/adapter/merge.ts'
import { readAdapter, writeAdapter } from '../../engine/adapter/peft.ts'
import { convertPissa, principalModule } from '../../engine/adapter/pissa.ts'
import { Decoder } from '../../engine/generate/decoder.ts'
import { openModel } from '../../engine/models/index.ts'
import { CompiledStep } from '../../engine/train/compiled-step.ts'
import { loraMethod, startFromAdapter } from '../../engine/train/lora-method.ts'
import type { TokenBatch } from '../../engine/train/step.ts'
import { WeightFolder } from '../../engine/weights/safetensors.ts'
import { relativeToLargest } from './reference.ts'

const folder = (name: string) => join(import.meta.dirname, 'variants', name)
const CASES = ['patterns', 'layers', 'expression', 'whole', 'tied', 'dora-rslora'] as const
const baseOf = (name: string) => folder(name === 'tied' ? 'base-tied' : 'base-untied')
const scratch = mkdtempSync(join(tmpdir(), 'anneal-variants-'))
afterAll(() => rmSync(scratch, { recursive: true }))

function open(name: string) {
  const reference = WeightFolder.open(folder(name), { fileName: 'reference.safetensors' })
  const [rows, length] = reference.entry('input_ids').shape as [number, number]
  const integers = (tensor: string) => new BigInt64Array(reference.readRaw(tensor).slice().buffer)
  const labels = integers('labels')
  const places = Array.from(labels.keys()).filter((i) => (i + 1) % length !== 0 && labels[i + 1] !== -100n)
  const batch: TokenBatch = {
    rows,
    length,
    inputIds: integers('input_ids'),
    trainedPositions: BigInt64Array.from(places, BigInt),
    labels: BigInt64Array.from(places, (i) => labels[i + 1]!),
    tokens: rows * length,
  }
  return { reference, batch }
}

/** PEFT's name of a parameter while it trains. */
function trainingName(name: string): string {
  if (!name.startsWith('base_model.')) {
    return `base_model.model.${name.replace(/\.(weight|bias)$/, '.modules_to_save.default.$1')}`
  }
  return name.endsWith('magnitude_vector')
    ? `${name}.default.weight`
    : name.replace(/\.weight$/, '.default.weight')
}

async function logitsOf(base: string, batch: TokenBatch, adapter?: string): Promise<Float32Array> {
  const decoder = await Decoder.load(base)
  try {
    const loaded = adapter === undefined ? undefined : await decoder.loadAdapter(adapter)
    const rows: Float32Array[] = []
    for (let row = 0; row < batch.rows; row++) {
      const tokens = Int32Array.from(
        batch.inputIds.subarray(row * batch.length, (row + 1) * batch.length),
        Number,
      )
      const places = Array.from(tokens.keys())
      rows.push(await decoder.logitsAt(tokens, decoder.createCache(), places, loaded))
    }
    return Float32Array.from(rows.flatMap((row) => [...row]))
  } finally {
    await decoder.release()
  }
}

describe("PEFT's variants of LoRA", () => {
  it.each(CASES)('%s: loss and every gradient are those of PEFT', async (name) => {
    const { reference, batch } = open(name)
    const adapter = readAdapter(folder(name))
    const model = openModel(baseOf(name))
    const begun = startFromAdapter(adapter)
    const step = await CompiledStep.create(model, {
      method: loraMethod(adapter.config),
      maxLength: 16,
      initialize: (parameter) => begun(parameter)!,
    })
    try {
      const { loss, gradients } = await step.run(batch, 1 / batch.labels.length)
      expect(loss).toBeCloseTo(reference.readFloat32('loss')[0]!, 5)
      const trained = [...reference.entries.keys()].filter((tensor) => tensor.startsWith('grad.'))
      expect(step.parameters.map((parameter) => `grad.${trainingName(parameter.name)}`).sort()).toEqual(
        trained.sort(),
      )
      for (const [index, parameter] of step.parameters.entries()) {
        const expected = reference.readFloat32(`grad.${trainingName(parameter.name)}`)
        expect(relativeToLargest(gradients[index]!, expected), parameter.name).toBeLessThan(1e-4)
      }
    } finally {
      await step.release()
    }
  })

  it.each(CASES)(
    '%s: the merge and, where nothing is replaced, the adapter answer as PEFT does',
    async (name) => {
      const { reference, batch } = open(name)
      const expected = reference.readFloat32('logits')
      const outputFolder = join(scratch, name)
      await mergeAdapter({ baseFolder: baseOf(name), adapterFolder: folder(name), outputFolder })
      expect(relativeToLargest(await logitsOf(outputFolder, batch), expected)).toBeLessThan(1e-5)
      if (readAdapter(folder(name)).saved.size === 0) {
        expect(relativeToLargest(await logitsOf(baseOf(name), batch, folder(name)), expected)).toBeLessThan(
          1e-5,
        )
      } else {
        await expect(logitsOf(baseOf(name), batch, folder(name))).rejects.toMatchObject({
          code: 'adapter_replaces_weights',
          message: expect.stringContaining('Merge it first'),
        })
      }
    },
  )

  it.each(CASES)('%s: is written as it was read', (name) => {
    const adapter = readAdapter(folder(name))
    writeAdapter(join(scratch, `copy-${name}`), adapter)
    expect(readAdapter(join(scratch, `copy-${name}`))).toEqual(adapter)
  })

  it('a new adapter starts at the base: whole tensors and magnitudes are the base’s own', async () => {
    for (const name of ['whole', 'dora-rslora'] as const) {
      const { batch } = open(name)
      const model = openModel(baseOf(name))
      const { config } = readAdapter(folder(name))
      const read = (tensor: string) => model.weights.readFloat32(tensor)
      const options = { maxLength: 16, initialize: initializeLora(1, read) }
      const step = await CompiledStep.create(model, { ...options, method: loraMethod(config) })
      const bare = await CompiledStep.create(model, {
        ...options,
        method: { kind: 'lora', rank: 1, scale: 1, dropout: 0, targets: ['q_proj'] },
      })
      const [begun, base] = [await step.evaluate(batch, 0.1), await bare.evaluate(batch, 0.1)]
      expect(begun.loss).toBeCloseTo(base.loss, 5)
      await step.release()
      await bare.release()
    }
  })
})

describe('shifted sparse attention', () => {
  it("has LongLoRA's loss and gradient", async () => {
    const { reference, batch } = open('shift')
    const model = openModel(folder('base-untied'))
    const name = 'model.layers.0.self_attn.q_proj.weight'
    const step = await CompiledStep.create(model, {
      method: { kind: 'full', trains: (tensor) => tensor === name },
      maxLength: 16,
      shiftAttention: true,
      initialize: (tensor) => model.weights.readFloat32(tensor),
    })
    const { loss, gradients } = await step.run(batch, 1 / batch.labels.length)
    expect(loss).toBeCloseTo(reference.readFloat32('loss')[0]!, 5)
    expect(relativeToLargest(gradients[0]!, reference.readFloat32(`grad.${name}`))).toBeLessThan(1e-4)
    await step.release()
  })
})

describe('PiSSA', () => {
  const begun = readAdapter(folder('pissa-start'))
  const base = WeightFolder.open(folder('base-untied'))

  it("begins with PEFT's principal part, exactly and nearly so by the fast decomposition", () => {
    for (const [path, module] of begun.modules) {
      const shape = [module.bShape[0], module.aShape[1]] as const
      const part = (one: typeof module) => {
        const product = new Float32Array(shape[0] * shape[1])
        addProduct(product, one)
        return product
      }
      const options = { rank: 3, scale: module.scale, seed: 1, dora: false }
      const weight = base.readFloat32(`${path}.weight`)
      const exact = principalModule(weight, shape, { ...options, iterations: -1 })
      expect(relativeToLargest(part(exact), part(module)), path).toBeLessThan(1e-5)
      const fast = principalModule(weight, shape, { ...options, iterations: 16 })
      expect(relativeToLargest(part(fast), part(module)), path).toBeLessThan(1e-3)
    }
  })

  it('is converted to the original base as PEFT converts it, and answers as over its own', async () => {
    const { reference, batch } = open('pissa')
    const trained = readAdapter(folder('pissa'))
    const converted = convertPissa(trained, begun)
    const expected = readAdapter(folder('pissa-converted'))
    expect(converted.config).toMatchObject({ r: 6, lora_alpha: 10 })
    expect(converted.config.lora_alpha).toBe(expected.config.lora_alpha)
    for (const [path, { a, b, scale }] of expected.modules) {
      const own = converted.modules.get(path)!
      expect(own.scale).toBe(scale)
      expect(relativeToLargest(own.a, a)).toBeLessThan(1e-6)
      expect(relativeToLargest(own.b, b)).toBeLessThan(1e-6)
    }
    writeAdapter(join(scratch, 'converted'), converted)
    const logits = await logitsOf(folder('base-untied'), batch, join(scratch, 'converted'))
    expect(relativeToLargest(logits, reference.readFloat32('logits'))).toBeLessThan(1e-5)
  })
})
