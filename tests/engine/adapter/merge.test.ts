import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { mergeAdapter } from '../../../engine/adapter/merge.ts'
import { type LoraAdapter, writeAdapter } from '../../../engine/adapter/peft.ts'
import { decodeFloat32, encodeFloat32, type WeightDType } from '../../../engine/weights/dtypes.ts'
import { WeightFolder } from '../../../engine/weights/safetensors.ts'
import { NEEDS_SHARED, SHARED, sharedMissing } from '../../shared.ts'
import {
  allWeights,
  DTYPE_NAMES,
  scratchFolder,
  type TinyModelOptions,
  writeTinyModel,
} from '../weights/tiny-model.ts'
import { randomAdapter } from './lora.ts'

let scratch: string
let folders: { baseFolder: string; adapterFolder: string; outputFolder: string }
beforeEach(() => {
  scratch = scratchFolder()
  folders = {
    baseFolder: join(scratch, 'base'),
    adapterFolder: join(scratch, 'adapter'),
    outputFolder: join(scratch, 'out'),
  }
})
afterEach(() => rmSync(scratch, { recursive: true }))

function prepare(model: TinyModelOptions = {}, adapter: LoraAdapter = randomAdapter()): void {
  writeTinyModel(folders.baseFolder, model)
  writeAdapter(folders.adapterFolder, adapter)
}

/** W + scale · B·A by its definition, rounded to `dtype`. */
function expectedMerge(
  weight: Float32Array,
  adapter: LoraAdapter,
  path: string,
  dtype: WeightDType,
): Float32Array {
  const { a, aShape, b, scale } = adapter.modules.get(path)!
  const [rank, columns] = aShape
  const merged = weight.map((value, index) => {
    const [row, column] = [Math.floor(index / columns), index % columns]
    let product = 0
    for (let r = 0; r < rank; r++) product += b[row * rank + r]! * a[r * columns + column]!
    return value + scale * product
  })
  return decodeFloat32(encodeFloat32(merged, dtype), dtype)
}

const rejected = (fields: Record<string, unknown>) =>
  expect(mergeAdapter(folders)).rejects.toMatchObject(fields)

describe('mergeAdapter', () => {
  it.each<WeightDType>(['float32', 'float16', 'bfloat16'])(
    'gives base + scale · B·A in %s',
    async (dtype) => {
      const adapter = randomAdapter()
      prepare({ dtype }, adapter)
      await mergeAdapter(folders)

      const base = allWeights(folders.baseFolder)
      const merged = allWeights(folders.outputFolder)
      expect([...merged.keys()].sort()).toEqual([...base.keys()].sort())
      for (const [name, values] of base) {
        const path = name.replace(/\.weight$/, '')
        const expected = adapter.modules.has(path) ? expectedMerge(values, adapter, path, dtype) : values
        const actual = merged.get(name)!
        const step = { float32: 2 ** -23, float16: 2 ** -10, bfloat16: 2 ** -7 }[dtype]
        const worst = Math.max(
          ...actual.map((value, i) => Math.abs(value - expected[i]!) / Math.abs(expected[i]!)),
        )
        expect(worst).toBeLessThanOrEqual(adapter.modules.has(path) ? step : 0)
      }
      const weights = WeightFolder.open(folders.outputFolder)
      for (const entry of weights.entries.values()) expect(entry.dtype).toBe(DTYPE_NAMES[dtype])
      weights.close()
    },
  )

  it('carries config and tokenizer over, but no pickle, no log and no picture', async () => {
    prepare()
    await mergeAdapter(folders)
    const carried = ['config.json', 'generation_config.json', 'tokenizer.json']
    expect(readdirSync(folders.outputFolder).sort()).toEqual([
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'tokenizer.json',
    ])
    for (const name of carried) {
      expect(readFileSync(join(folders.outputFolder, name))).toEqual(
        readFileSync(join(folders.baseFolder, name)),
      )
    }
    expect(readdirSync(scratch).sort()).toEqual(['adapter', 'base', 'out'])
  })

  it('gives the same weights in shards as in one file, and reports every byte once', async () => {
    prepare()
    const progress: number[] = []
    const bytes = await mergeAdapter(folders)
    const outputFolder = join(scratch, 'shards')
    await mergeAdapter({
      ...folders,
      outputFolder,
      shardBytes: 200,
      onProgress: ({ done, total }) => progress.push(done / total),
    })
    expect(readdirSync(outputFolder).filter((name) => /safetensors/.test(name))).toEqual([
      'model-00001-of-00003.safetensors',
      'model-00002-of-00003.safetensors',
      'model-00003-of-00003.safetensors',
      'model.safetensors.index.json',
    ])
    const index = JSON.parse(readFileSync(join(outputFolder, 'model.safetensors.index.json'), 'utf8'))
    expect(index.metadata.total_size).toBe(bytes)
    expect(allWeights(outputFolder)).toEqual(allWeights(folders.outputFolder))
    expect(progress).toEqual([...progress].sort((a, b) => a - b))
    expect(progress.at(-1)).toBe(1)
  })

  it('copies the base when there is no adapter', async () => {
    prepare()
    await mergeAdapter({ ...folders, adapterFolder: undefined })
    expect(allWeights(folders.outputFolder)).toEqual(allWeights(folders.baseFolder))
  })

  it('lists the modules that the base lacks or has in another shape', async () => {
    const adapter = randomAdapter(['model.layers.7.mlp.up_proj', 'model.layers.0.self_attn.q_proj'])
    adapter.modules.get('model.layers.0.self_attn.q_proj')!.bShape = [7, 3]
    adapter.modules.get('model.layers.0.self_attn.q_proj')!.b = new Float32Array(21)
    prepare({}, adapter)
    await expect(mergeAdapter(folders)).rejects.toThrow(
      /q_proj is \[6,8\] in the base, but the adapter is for \[7,8\]; model\.layers\.7\.mlp\.up_proj is not in the base/,
    )
  })

  it('merges into an untied head, and refuses a tied one', async () => {
    prepare({}, randomAdapter(['lm_head']))
    await mergeAdapter(folders)
    expect(allWeights(folders.outputFolder).get('lm_head.weight')).not.toEqual(
      allWeights(folders.baseFolder).get('lm_head.weight'),
    )
    rmSync(folders.outputFolder, { recursive: true })
    writeTinyModel(folders.baseFolder, { config: { tie_word_embeddings: true } })
    await rejected({ kind: 'unsupported', code: 'adapter_on_tied_embeddings' })
    writeTinyModel(folders.baseFolder, { without: ['lm_head.weight'] })
    await rejected({ kind: 'unsupported', code: 'adapter_on_tied_embeddings' })
  })

  it('refuses a quantized base', async () => {
    prepare({ config: { quantization_config: { bits: 4 } } })
    await rejected({ kind: 'refused', code: 'base_quantized' })
  })

  it('names the tensor that does not come out finite', async () => {
    const adapter = randomAdapter()
    adapter.modules.get('model.layers.0.mlp.down_proj')!.a[2] = Number.NaN
    prepare({}, adapter)
    await expect(mergeAdapter(folders)).rejects.toThrow(
      /model\.layers\.0\.mlp\.down_proj\.weight comes out as NaN/,
    )
    expect(readdirSync(scratch).sort()).toEqual(['adapter', 'base'])
  })

  it('names the tensor that outgrows the dtype of its base', async () => {
    const adapter = randomAdapter()
    adapter.modules.get('model.layers.0.mlp.down_proj')!.a.fill(60_000)
    prepare({ dtype: 'float16' }, adapter)
    await expect(mergeAdapter(folders)).rejects.toThrow(
      /down_proj\.weight has -?\d+.* beyond the largest float16/,
    )
  })

  it('leaves nothing when it is cancelled half-way', async () => {
    prepare()
    const controller = new AbortController()
    const merging = mergeAdapter({
      ...folders,
      signal: controller.signal,
      onProgress: () => controller.abort(),
    })
    await expect(merging).rejects.toMatchObject({ kind: 'cancelled' })
    expect(readdirSync(scratch).sort()).toEqual(['adapter', 'base'])
  })

  it('does not touch an output folder with contents', async () => {
    prepare()
    writeTinyModel(folders.outputFolder)
    writeFileSync(join(folders.outputFolder, 'mine'), '')
    await rejected({ kind: 'conflict', code: 'output_not_empty' })
    expect(readdirSync(folders.outputFolder)).toContain('mine')
  })
})

describe.skipIf(sharedMissing('golden/llama'))(`mergeAdapter against PEFT ${NEEDS_SHARED}`, () => {
  it.each(['plain', 'rslora'])('gives the same first-layer q_proj within 1e-6 (%s)', async (kind) => {
    const golden = join(SHARED, 'golden/llama')
    const { outputFolder } = folders
    await mergeAdapter({
      baseFolder: join(golden, 'model'),
      adapterFolder: join(golden, `adapter-${kind}-end`),
      outputFolder,
    })
    const name = 'model.layers.0.self_attn.q_proj.weight'
    const reference = WeightFolder.open(golden, { fileName: 'reference.safetensors' })
    const expected = reference.readFloat32(`${kind}.merged.${name}`)
    reference.close()
    const actual = allWeights(outputFolder).get(name)!
    expect(Math.max(...actual.map((value, i) => Math.abs(value - expected[i]!)))).toBeLessThan(1e-6)
  })
})

describe('the digests of a merge', () => {
  it.each([undefined, 200])('are those of its files (shards of %s bytes)', async (shardBytes) => {
    prepare()
    const found = new Map<string, string>()
    await mergeAdapter({
      ...folders,
      shardBytes,
      digests: true,
      finish: async (_, digests) => {
        for (const [name, digest] of digests) found.set(name, digest)
      },
    })
    const names = readdirSync(folders.outputFolder).filter((name) => name.endsWith('.safetensors'))
    expect([...found.keys()].sort()).toEqual(names)
    for (const name of names) {
      const content = readFileSync(join(folders.outputFolder, name))
      expect(found.get(name), name).toBe(createHash('sha256').update(content).digest('hex'))
    }
  })

  it('cost nothing when the merge is cancelled half-way', async () => {
    prepare()
    const controller = new AbortController()
    const onProgress = () => controller.abort()
    const merging = mergeAdapter({ ...folders, digests: true, signal: controller.signal, onProgress })
    await expect(merging).rejects.toMatchObject({ kind: 'cancelled' })
    expect(readdirSync(scratch).sort()).toEqual(['adapter', 'base'])
  })
})

describe('a merge of large weights', () => {
  it('gives the same bytes and digests as one of small ones', async () => {
    prepare()
    const found: string[] = []
    const finish = async (_: string, digests: ReadonlyMap<string, string>) =>
      void found.push(...digests.values())
    await mergeAdapter({ ...folders, digests: true, finish })
    const outputFolder = join(scratch, 'large')
    await mergeAdapter({ ...folders, outputFolder, digests: true, largeBytes: 1, finish })
    const [small, large] = [folders.outputFolder, outputFolder].map((folder) =>
      readFileSync(join(folder, 'model.safetensors')),
    )
    expect(large!.equals(small!)).toBe(true)
    expect(found[1]).toBe(found[0])
  })

  it('leaves nothing when it is cancelled half-way', async () => {
    prepare()
    const controller = new AbortController()
    const onProgress = () => controller.abort()
    const merging = mergeAdapter({
      ...folders,
      digests: true,
      largeBytes: 1,
      signal: controller.signal,
      onProgress,
    })
    await expect(merging).rejects.toMatchObject({ kind: 'cancelled' })
    expect(readdirSync(scratch).sort()).toEqual(['adapter', 'base'])
  })
})

describe('rows that the kernel gives back', () => {
  it.each([1, Number.POSITIVE_INFINITY])(
    'are named with the element and the value (large from %s bytes)',
    async (largeBytes) => {
      const adapter = randomAdapter(['model.layers.0.self_attn.q_proj'])
      adapter.modules.get('model.layers.0.self_attn.q_proj')!.b.fill(3e38)
      prepare({}, adapter)
      await expect(mergeAdapter({ ...folders, largeBytes })).rejects.toThrow(
        /q_proj\.weight comes out as -?Infinity at element \d+/,
      )
    },
  )
})
