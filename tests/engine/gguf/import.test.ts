import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeEach, describe, expect, it } from 'vitest'
import { dequantize } from '../../../engine/gguf/dequantize.ts'
import { importGguf, partHalves } from '../../../engine/gguf/import.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { decodeFloat32 } from '../../../engine/weights/dtypes.ts'
import { WeightFolder } from '../../../engine/weights/safetensors.ts'
import { NEEDS_SHARED, SHARED, sharedMissing } from '../../shared.ts'
import { allWeights, scratchFolder } from '../weights/tiny-model.ts'
import { ggufBytes, type TensorBytes, type Value } from './gguf-bytes.ts'
import { tinyMetadata, tinyTensors, VOCABULARY } from './tiny-gguf.ts'

const scratch = scratchFolder()
const file = join(scratch, 'model.gguf')
const outputFolder = join(scratch, 'out')
beforeEach(() => rmSync(outputFolder, { recursive: true, force: true }))
afterAll(() => rmSync(scratch, { recursive: true }))

function write(metadata: Record<string, Value> = tinyMetadata(), tensors: TensorBytes[] = tinyTensors()) {
  writeFileSync(file, ggufBytes(metadata, tensors))
}

const json = (name: string) => JSON.parse(readFileSync(join(outputFolder, name), 'utf8'))

const valuesOf = (tensors: TensorBytes[], name: string) =>
  decodeFloat32(tensors.find((tensor) => tensor.name === name)!.bytes, 'float32')

describe('dequantize', () => {
  const fixture = JSON.parse(readFileSync(join(import.meta.dirname, 'fixtures/blocks.json'), 'utf8'))

  it.each(['Q4_0', 'Q4_1', 'Q8_0', 'Q4_K', 'Q6_K'] as const)(
    'reads %s blocks bit for bit as gguf-py does',
    (type) => {
      const { blocks, values } = fixture[type]
      const expected = decodeFloat32(Uint8Array.from(Buffer.from(values, 'base64')), 'float32')
      expect(dequantize(type, Buffer.from(blocks, 'base64'), expected.length)).toEqual(expected)
    },
  )
})

describe('importGguf', () => {
  it('writes a Hugging Face folder in the dtype of the matrices', async () => {
    write()
    const bytes = await importGguf({ file, outputFolder })
    expect(readdirSync(outputFolder).sort()).toEqual([
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'special_tokens_map.json',
      'tokenizer.json',
      'tokenizer_config.json',
    ])
    expect(json('config.json')).toMatchObject({
      model_type: 'llama',
      vocab_size: VOCABULARY.length,
      hidden_size: 8,
      num_key_value_heads: 1,
      head_dim: 4,
      rms_norm_eps: 1e-5,
      tie_word_embeddings: true,
      torch_dtype: 'float32',
      eos_token_id: 2,
    })
    const values = allWeights(outputFolder)
    expect(values.get('model.layers.0.mlp.down_proj.weight')).toEqual(
      valuesOf(tinyTensors(), 'blk.0.ffn_down.weight'),
    )
    expect(bytes).toBe([...values.values()].reduce((sum, { byteLength }) => sum + byteLength, 0))
  })

  it("parts the rotary halves of llama's q and k, and leaves qwen2's alone, biases included", async () => {
    const tensors = tinyTensors({ biases: true })
    write(tinyMetadata('qwen2'), tensors)
    await importGguf({ file, outputFolder })
    expect(allWeights(outputFolder).get('model.layers.0.self_attn.q_proj.weight')).toEqual(
      valuesOf(tensors, 'blk.0.attn_q.weight'),
    )
    expect(allWeights(outputFolder).get('model.layers.0.self_attn.k_proj.bias')).toEqual(
      valuesOf(tensors, 'blk.0.attn_k.bias'),
    )
    rmSync(outputFolder, { recursive: true })
    write()
    await importGguf({ file, outputFolder })
    // Row 2·i + half of each head of four becomes row half·2 + i.
    const rows = (values: Float32Array) =>
      Array.from({ length: 8 }, (_, row) => values.slice(row * 8, row * 8 + 8))
    const source = rows(valuesOf(tensors, 'blk.0.attn_q.weight'))
    expect(rows(allWeights(outputFolder).get('model.layers.0.self_attn.q_proj.weight')!)).toEqual(
      [0, 2, 1, 3, 4, 6, 5, 7].map((row) => source[row]),
    )
  })

  it("reads qwen3's norms of each head", async () => {
    write(tinyMetadata('qwen3'), tinyTensors({ headNorms: true }))
    await importGguf({ file, outputFolder })
    expect(allWeights(outputFolder).has('model.layers.0.self_attn.q_norm.weight')).toBe(true)
  })

  it("finds Llama 3's rope scaling in its factors, and refuses others", async () => {
    const factors = (values: number[]) => ({
      name: 'rope_freqs.weight',
      shape: [2],
      bytes: new Uint8Array(Float32Array.from(values).buffer),
    })
    // With base 1e9 and two frequencies: wavelengths 6.3 (kept) and 198,692 (divided).
    const metadata = tinyMetadata('llama', { 'llama.rope.freq_base': { f32: 1e9 } })
    write(metadata, [...tinyTensors(), factors([1, 32])])
    await importGguf({ file, outputFolder })
    expect(json('config.json').rope_scaling).toEqual({
      rope_type: 'llama3',
      factor: 32,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    })
    rmSync(outputFolder, { recursive: true })
    write(metadata, [...tinyTensors(), factors([2, 32])])
    await expect(importGguf({ file, outputFolder })).rejects.toMatchObject({ kind: 'unsupported' })
  })

  it('gives the same weights in shards as in one file', async () => {
    write()
    await importGguf({ file, outputFolder })
    const sharded = join(scratch, 'sharded')
    await importGguf({ file, outputFolder: sharded, shardBytes: 500 })
    expect(readdirSync(sharded)).toContain('model.safetensors.index.json')
    expect(allWeights(sharded)).toEqual(allWeights(outputFolder))
  })

  it.each<[string, Record<string, Value | undefined>, TensorBytes[], string]>([
    ['another architecture', { 'general.architecture': { text: 'granite' } }, [], 'granite'],
    [
      'experts where there are none',
      { 'general.architecture': { text: 'qwen3' }, 'qwen3.expert_count': { u32: 8 } },
      tinyTensors(),
      'qwen3.expert_count',
    ],
    [
      "Phi-3's two ropes",
      tinyMetadata('phi3', { 'general.architecture': { text: 'phi3' } }),
      [...tinyTensors(), { name: 'rope_factors_long.weight', shape: [2], bytes: new Uint8Array(8) }],
      'rope_factors_long.weight',
    ],
    ['another pre-tokenizer', { 'tokenizer.ggml.pre': { text: 'bloom' } }, tinyTensors(), 'bloom'],
    ['another tokenizer', { 'tokenizer.ggml.model': { text: 'bert' } }, tinyTensors(), 'bert'],
    ['partial rotation', { 'llama.rope.dimension_count': { u32: 2 } }, tinyTensors(), 'dimension_count'],
    [
      'longrope',
      { 'llama.rope.scaling.type': { text: 'longrope' }, 'llama.rope.scaling.factor': { f32: 4 } },
      tinyTensors(),
      'longrope',
    ],
  ])('refuses %s by name and writes nothing', async (_, changes, tensors, name) => {
    write(tinyMetadata('llama', changes), tensors)
    await expect(importGguf({ file, outputFolder })).rejects.toMatchObject({
      kind: 'unsupported',
      message: expect.stringContaining(name),
    })
    expect(readdirSync(scratch)).not.toContain('out')
  })

  it.each<[string, Record<string, Value | undefined>, TensorBytes[], RegExp]>([
    ['a missing tensor', {}, tinyTensors().slice(0, -1), /output_norm\.weight is missing/],
    [
      'an unknown tensor',
      {},
      [...tinyTensors(), { name: 'blk.0.x', shape: [1], bytes: new Uint8Array(4) }],
      /blk\.0\.x has no place/,
    ],
    [
      'more layers than there are',
      { 'llama.block_count': { u32: 2 ** 31 - 1 } },
      tinyTensors(),
      /2147483647 layers cannot lie in 11 tensors/,
    ],
    [
      'one layer more than there are',
      { 'llama.block_count': { u32: 2 } },
      tinyTensors(),
      /blk\.1\.attn_norm\.weight is missing/,
    ],
    [
      'more experts than tensors could hold',
      { 'llama.expert_count': { u32: 2 ** 31 - 1 } },
      tinyTensors(),
      /expert_count is 2147483647, not a whole number from 0 to 1024/,
    ],
    [
      'another shape',
      { 'llama.feed_forward_length': { u32: 7 } },
      tinyTensors(),
      /ffn_gate\.weight is \[6,8\], but its metadata says \[7,8\]/,
    ],
    [
      'a text for a number',
      { 'llama.block_count': { text: '1' } },
      tinyTensors(),
      /block_count is "1", not a whole number/,
    ],
    [
      'fewer types than tokens',
      { 'tokenizer.ggml.token_type': { i32s: [1] } },
      tinyTensors(),
      /7 tokens, but 1 token types/,
    ],
    [
      'a token id outside',
      { 'tokenizer.ggml.eos_token_id': { u32: 99 } },
      tinyTensors(),
      /eos_token_id is 99/,
    ],
    ['a merge of one part', { 'tokenizer.ggml.merges': { texts: ['ab'] } }, tinyTensors(), /the merge "ab"/],
  ])('refuses %s', async (_, changes, tensors, message) => {
    write(tinyMetadata('llama', changes), tensors)
    await expect(importGguf({ file, outputFolder })).rejects.toThrow(message)
    expect(readdirSync(scratch)).not.toContain('out')
  })

  it('names the tensor whose numbers are not finite, and leaves nothing', async () => {
    const tensors = tinyTensors()
    new Float32Array(tensors[3]!.bytes.buffer)[5] = Number.NaN
    write(tinyMetadata(), tensors)
    await expect(importGguf({ file, outputFolder })).rejects.toThrow(
      /k_proj\.weight comes out as NaN at element/,
    )
    expect(readdirSync(scratch).filter((name) => name.includes('out'))).toEqual([])
  })

  it('leaves nothing when it is cancelled half-way', async () => {
    write()
    const controller = new AbortController()
    const importing = importGguf({
      file,
      outputFolder,
      signal: controller.signal,
      onProgress: () => controller.abort(),
    })
    await expect(importing).rejects.toMatchObject({ kind: 'cancelled' })
    expect(readdirSync(scratch).filter((name) => name.includes('out'))).toEqual([])
  })
})

describe('partHalves', () => {
  it('is undone by interleaving again', () => {
    const values = Float32Array.from({ length: 24 }, (_, i) => i)
    const parted = partHalves(values, 4, 2)
    const interleaved = new Float32Array(24)
    for (let row = 0; row < 12; row++) {
      const inHead = row % 4
      const to = row - inHead + (inHead % 2) * 2 + Math.floor(inHead / 2)
      interleaved.set(parted.subarray(row * 2, row * 2 + 2), to * 2)
    }
    expect(interleaved).toEqual(values)
  })
})

describe.skipIf(sharedMissing('models'))(`importGguf on SmolLM2 ${NEEDS_SHARED}`, () => {
  it('gives bit for bit the weights of the unpacked folder, and the same tokens', async () => {
    const models = join(SHARED, 'models')
    const unpacked = join(scratch, 'unpacked')
    execFileSync(process.execPath, [join(models, 'unpack.mjs'), unpacked])
    await importGguf({ file: join(models, 'SmolLM2-135M-Instruct/model-q4_1.gguf'), outputFolder })
    const [actual, expected] = [WeightFolder.open(outputFolder), WeightFolder.open(unpacked)]
    expect([...actual.entries.keys()].sort()).toEqual([...expected.entries.keys()].sort())
    for (const name of expected.entries.keys()) {
      expect(Buffer.compare(actual.readRaw(name), expected.readRaw(name)), name).toBe(0)
    }
    const published = JSON.parse(readFileSync(join(unpacked, 'config.json'), 'utf8'))
    for (const [key, value] of Object.entries(json('config.json'))) {
      if (key in published) expect(value, key).toEqual(published[key])
    }
    const [ours, theirs] = [loadTokenizer(outputFolder), loadTokenizer(unpacked)]
    expect(ours.chatTemplate).toBe(theirs.chatTemplate)
    expect([ours.tokens, ours.eosTokenIds, ours.addBosToken]).toEqual([
      theirs.tokens,
      theirs.eosTokenIds,
      theirs.addBosToken,
    ])
    const texts = readFileSync(join(SHARED, 'reference/serving-and-api.md'), 'utf8').split('\n')
    for (const text of [...texts, '<|im_start|>user\n12345 漢字 🙂\t\n<|im_end|>', '  two  spaces ']) {
      expect([...ours.encode(text)]).toEqual([...theirs.encode(text)])
    }
  })
})
