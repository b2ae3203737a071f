import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exportModel } from '../../../engine/export/export-model.ts'
import { Decoder } from '../../../engine/generate/decoder.ts'
import { Encoder } from '../../../engine/generate/encoder.ts'
import { importGguf } from '../../../engine/gguf/import.ts'
import { encodeFloat32 } from '../../../engine/weights/dtypes.ts'
import { WeightFolder, writeSafetensors } from '../../../engine/weights/safetensors.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'
import { tinyAdapter, tinyLlama } from '../../src/engine-host/tiny-llama.ts'
import { quantizedFolder } from '../quant/quantized-folder.ts'

const source = tinyLlama()
const adapter = tinyAdapter(source)
let scratch: string
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'anneal-quantized-'))
})
afterAll(() => rmSync(scratch, { recursive: true }))

const tokens = Int32Array.from({ length: 40 }, (_, i) => 97 + ((i * 11) % 26))

/** The model with the weights that the codes stand for, as an ordinary folder. */
function denseFolder(name: string, dense: ReadonlyMap<string, Float32Array>): string {
  const folder = join(scratch, name)
  cpSync(source, folder, { recursive: true })
  const weights = WeightFolder.open(source)
  const tensors = [...weights.entries.values()].map(({ name: tensor, shape }) => {
    const values = dense.get(tensor) ?? weights.readFloat32(tensor)
    return { name: tensor, dtype: 'F32' as const, shape, data: encodeFloat32(values, 'float32') }
  })
  writeSafetensors(join(folder, 'model.safetensors'), tensors)
  return folder
}

/** What a served folder says of the tokens: logits with and without an adapter, their vector and their scores. */
async function saidBy(folder: string, adapterFolder?: string) {
  const packedFolder = join(scratch, 'packed')
  const decoder = await Decoder.load(folder, { threads: 1, packedFolder, adapters: 'plain' })
  const encoder = new Encoder(folder, { threads: 1, maxTokens: 64, packedFolder })
  try {
    const adapter = adapterFolder && (await decoder.loadAdapter(adapterFolder))
    const scores = await encoder.score(tokens, 1, adapterFolder)
    return {
      logits: await decoder.forward(tokens, decoder.createCache()),
      adapted: adapter ? await decoder.forward(tokens, decoder.createCache(), adapter) : new Float32Array(),
      vector: await encoder.embed(tokens),
      scores: Float32Array.from(scores, ({ logprob }) => logprob),
    }
  } finally {
    await encoder.release()
    await decoder.release()
  }
}

/** Largest difference over the largest value. */
function relative(actual: Float32Array, expected: Float32Array): number {
  const largest = (values: Float32Array) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  return largest(actual.map((value, i) => value - expected[i]!)) / largest(expected)
}

describe.each([
  ['gptq', false],
  ['gptq', true],
  ['awq', false],
] as const)('a base that comes as %s, act-order %s', (method, actOrder) => {
  it('answers, embeds and scores as the weights that its codes stand for, adapters included', async () => {
    const folder = join(scratch, `${method}-${actOrder}`)
    const { dense } = quantizedFolder(folder, method, actOrder)
    const actual = await saidBy(folder, adapter)
    const expected = await saidBy(denseFolder(`${method}-${actOrder}-dense`, dense), adapter)
    // The decoder's 4-bit products round their inputs to 8 bits; the encoder's products are in float32.
    expect(relative(actual.logits, expected.logits)).toBeLessThan(0.03)
    expect(relative(actual.adapted, expected.adapted)).toBeLessThan(0.03)
    expect(relative(actual.vector, expected.vector)).toBeLessThan(1e-4)
    expect(relative(actual.scores, expected.scores)).toBeLessThan(1e-4)
  })
})

describe('a base that comes from GGUF', () => {
  it.each([
    ['Q8_0', 8, 0.02],
    ['Q4_1', 4, 0.25],
  ] as const)('answers at %s near the model that it was made of', async (ggufType, bits, bound) => {
    const [outputFolder, back] = [join(scratch, ggufType), join(scratch, `${ggufType}-back`)]
    await exportModel({
      model: 'anneal-tiny',
      modelFolder: ANNEAL_TINY,
      outputFolder,
      workFolder: join(scratch, '.work'),
      format: 'gguf',
      bits,
      dtype: 'float16',
      shardBytes: 5e9,
      ggufType,
      method: 'rtn',
      groupSize: 32,
      symmetric: true,
      actOrder: false,
      damping: 0.05,
      seed: 1,
      calibration: undefined,
      text: { dataset: 'none', windows: [tokens] },
      maxKld: undefined,
      threads: 1,
    })
    await importGguf({ file: join(outputFolder, `model-${ggufType}.gguf`), outputFolder: back })
    const [actual, expected] = [await saidBy(back), await saidBy(ANNEAL_TINY)]
    expect(relative(actual.logits, expected.logits)).toBeLessThan(bound)
    expect(relative(actual.vector, expected.vector)).toBeLessThan(bound)
  })
})
