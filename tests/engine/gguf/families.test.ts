import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { ggufFileName, writeGguf } from '../../../engine/export/gguf.ts'
import type { GgufFileType } from '../../../engine/export/gguf-types.ts'
import { Decoder } from '../../../engine/generate/decoder.ts'
import { ggufArchitectureOf } from '../../../engine/gguf/families.ts'
import { importGguf } from '../../../engine/gguf/import.ts'
import { modelTensors } from '../../../engine/gguf/tensors.ts'
import { familyOf, openModel } from '../../../engine/models/index.ts'
import type { RawConfig } from '../../../engine/models/raw-config.ts'
import { elementCount } from '../../../engine/tensor.ts'
import { encodeFloat32 } from '../../../engine/weights/dtypes.ts'
import { writeSafetensors } from '../../../engine/weights/safetensors.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'
import { gaussian, scratchFolder } from '../weights/tiny-model.ts'

const scratch = scratchFolder()
afterAll(() => rmSync(scratch, { recursive: true }))

const SIZES = {
  // Rows beyond the tokenizer's 2,048, as many releases have.
  vocab_size: 2051,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 8,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  bos_token_id: 0,
  eos_token_id: 2,
}

interface Case {
  config: Record<string, unknown>
  /** Modules with biases, by their names in the file. */
  biases?: RegExp
}

const QKV = /attn_(q|k|v|qkv)\./
const GEMMA2 = { tie_word_embeddings: true, head_dim: 16, query_pre_attn_scalar: 16, sliding_window: 4 }
const EXPERTS = { num_experts_per_tok: 2, tie_word_embeddings: false }
const LINEAR = { rope_type: 'linear', factor: 2 }

const CASES: Record<string, Case> = {
  'llama, tied': { config: { model_type: 'llama', tie_word_embeddings: true } },
  'llama with biases and linear rope': {
    config: { model_type: 'llama', attention_bias: true, mlp_bias: true, rope_scaling: LINEAR },
    biases: /attn_|ffn_/,
  },
  "llama with Llama 3's rope": {
    config: {
      model_type: 'llama',
      rope_theta: 500_000,
      rope_scaling: {
        rope_type: 'llama3',
        factor: 32,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 8192,
      },
    },
  },
  mistral: { config: { model_type: 'mistral', head_dim: 16, sliding_window: null } },
  Yi: { config: { model_type: 'Yi' } },
  mixtral: { config: { model_type: 'mixtral', ...EXPERTS, num_local_experts: 4, sliding_window: null } },
  qwen2: { config: { model_type: 'qwen2', tie_word_embeddings: true }, biases: QKV },
  qwen3: { config: { model_type: 'qwen3', head_dim: 16 } },
  qwen3_moe: {
    config: {
      model_type: 'qwen3_moe',
      ...EXPERTS,
      num_experts: 4,
      moe_intermediate_size: 24,
      norm_topk_prob: true,
    },
  },
  gemma: { config: { model_type: 'gemma', tie_word_embeddings: true, head_dim: 16 } },
  gemma2: { config: { model_type: 'gemma2', ...GEMMA2, final_logit_softcapping: 20 } },
  gemma3: { config: { model_type: 'gemma3_text', ...GEMMA2, num_hidden_layers: 7 } },
  'gemma3 with windows elsewhere and two ropes': {
    config: {
      model_type: 'gemma3_text',
      ...GEMMA2,
      layer_types: ['full_attention', 'sliding_attention', 'sliding_attention'],
      rope_parameters: {
        full_attention: { ...LINEAR, rope_theta: 1_000_000 },
        sliding_attention: { rope_type: 'default', rope_theta: 20_000 },
      },
    },
  },
  'phi3, rotating three quarters': {
    config: { model_type: 'phi3', sliding_window: null, partial_rotary_factor: 0.75 },
  },
  olmo2: { config: { model_type: 'olmo2', tie_word_embeddings: false } },
  'olmo2, tied': { config: { model_type: 'olmo2', tie_word_embeddings: true } },
  glm: { config: { model_type: 'glm' }, biases: QKV },
  glm4: { config: { model_type: 'glm4', head_dim: 16 }, biases: QKV },
}

/** A folder with random weights for every tensor that the family's checkpoints have. */
function randomModel(folder: string, { config, biases }: Case): void {
  mkdirSync(folder)
  const raw = { ...SIZES, ...config } as unknown as RawConfig
  const parsed = familyOf(raw).parseConfig(raw)
  const architecture = ggufArchitectureOf(parsed)
  const planned = modelTensors(architecture, parsed, (matrix) => biases?.test(matrix) ?? false)
  const shapes = new Map(
    planned.flatMap(({ from }) =>
      from instanceof Float32Array ? [] : from.map(({ name, shape }) => [name, shape] as const),
    ),
  )
  const tensors = [...shapes].map(([name, shape], seed) => {
    const isMatrix = shape.length > 1
    const [mean, spread] = isMatrix
      ? [0, 0.7 / Math.sqrt(shape[1]!)]
      : [name.endsWith('norm.weight') ? 1 - parsed.normOffset : 0, 0.2]
    const values = gaussian(elementCount(shape), seed + 1).map((value) => mean + spread * value)
    return { name, dtype: 'F32' as const, shape: [...shape], data: encodeFloat32(values, 'float32') }
  })
  writeSafetensors(join(folder, 'model.safetensors'), tensors)
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...raw, torch_dtype: 'float32' }))
  for (const name of ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json']) {
    copyFileSync(join(ANNEAL_TINY, name), join(folder, name))
  }
}

async function thereAndBack(folder: string, type: GgufFileType): Promise<string> {
  const model = openModel(folder)
  await writeGguf(scratch, { model, type })
  model.weights.close()
  const outputFolder = `${folder} back as ${type}`
  await importGguf({ file: join(scratch, ggufFileName(type)), outputFolder })
  return outputFolder
}

/** The logits after each of a few tokens. */
async function logitsOf(folder: string): Promise<Float32Array[]> {
  const decoder = await Decoder.load(folder, { threads: 1 })
  try {
    const cache = decoder.createCache()
    const rows: Float32Array[] = []
    for (const token of [5, 300, 17, 2000, 42, 9]) {
      rows.push(Float32Array.from(await decoder.forward(Int32Array.of(token), cache)))
    }
    return rows
  } finally {
    await decoder.release()
  }
}

describe('a model of every family that goes out as GGUF and comes back', () => {
  it.each(Object.entries(CASES))('computes the same logits: %s', async (name, given) => {
    const folder = join(scratch, name)
    randomModel(folder, given)
    const back = await thereAndBack(folder, 'F32')
    const [before, after] = [await logitsOf(folder), await logitsOf(back)]
    // Gemma's norms lose a bit where 1 is added to them and taken away; everything else comes back as it was.
    const largest = Math.max(...before.flatMap((row) => [...row].map(Math.abs)))
    const difference = Math.max(
      ...before.flatMap((row, at) => [...row].map((value, i) => Math.abs(value - after[at]![i]!))),
    )
    expect(difference).toBeLessThanOrEqual(name.startsWith('gemma') ? 2e-6 * largest : 0)
  })

  it('writes the soft caps of Gemma 2 as fractions, as transformers takes no others', async () => {
    const folder = join(scratch, 'caps')
    randomModel(folder, CASES.gemma2!)
    const config = readFileSync(join(await thereAndBack(folder, 'F32'), 'config.json'), 'utf8')
    expect(config).toContain('"attn_logit_softcapping": 50.0,')
    expect(config).toContain('"final_logit_softcapping": 20.0,')
  })

  it('keeps float16 where only its router is wider', async () => {
    const folder = join(scratch, 'experts')
    randomModel(folder, CASES.mixtral!)
    const back = openModel(await thereAndBack(folder, 'F16'))
    const dtypes = new Set([...back.weights.entries.values()].map(({ dtype }) => dtype))
    back.weights.close()
    expect([...dtypes]).toEqual(['F16'])
  })
})
