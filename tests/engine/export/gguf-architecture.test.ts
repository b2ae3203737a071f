import { describe, expect, it } from 'vitest'
import { ggufModel } from '../../../engine/export/gguf-architecture.ts'
import { familyOf, type OpenModel } from '../../../engine/models/index.ts'
import type { RawConfig } from '../../../engine/models/raw-config.ts'

const TINY = {
  vocab_size: 32,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
}

/** A model whose weights have whatever shape is asked for. */
function translated(config: Record<string, unknown>) {
  const raw = { ...TINY, ...config } as unknown as RawConfig
  const weights = { has: () => false, expectShape: () => ({}) }
  return ggufModel({ config: familyOf(raw).parseConfig(raw), weights } as unknown as OpenModel)
}

const GEMMA2 = { model_type: 'gemma2', head_dim: 16, query_pre_attn_scalar: 16, sliding_window: 8 }
const GEMMA3 = { ...GEMMA2, model_type: 'gemma3_text' }
const MOE = {
  model_type: 'qwen3_moe',
  head_dim: 4,
  num_experts: 4,
  num_experts_per_tok: 2,
  moe_intermediate_size: 8,
  norm_topk_prob: true,
}
const YARNLIKE = { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4 }

describe('ggufModel', () => {
  it.each<[string, Record<string, unknown>, string]>([
    ['a family without a place', { model_type: 'baichuan' }, "model_type 'baichuan' is not written"],
    ['another activation', { model_type: 'llama', hidden_act: 'gelu_new' }, 'the activation gelu_tanh'],
    ['heads wider than the model', { model_type: 'qwen2', head_dim: 8 }, '4 heads of 8 in a width of 16'],
    ['queries scaled otherwise', { ...GEMMA2, query_pre_attn_scalar: 24 }, 'an attention scale'],
    ['scores without their cap', { ...GEMMA2, attn_logit_softcapping: null }, 'a soft cap of null'],
    ['logits without their cap', { ...GEMMA2, final_logit_softcapping: null }, 'without a soft cap'],
    ['a head beside the embedding', { ...GEMMA2, tie_word_embeddings: false }, 'an output matrix'],
    ['biases on the output', { model_type: 'qwen3', head_dim: 4, attention_bias: true }, 'biases beside'],
    ['experts in some layers', { ...MOE, mlp_only_layers: [1] }, 'experts in some layers only'],
    ['experts whose weights sum to less', { ...MOE, norm_topk_prob: false }, 'norm_topk_prob'],
    [
      "Llama 3's rope elsewhere",
      { model_type: 'qwen2', rope_scaling: { ...YARNLIKE, original_max_position_embeddings: 32 } },
      "Llama 3's rope scaling",
    ],
    [
      'scaled rope in layers with a window',
      {
        ...GEMMA3,
        layer_types: ['sliding_attention', 'full_attention', 'sliding_attention', 'full_attention'],
        rope_parameters: {
          full_attention: { rope_type: 'default', rope_theta: 1e6 },
          sliding_attention: { rope_type: 'linear', factor: 2, rope_theta: 1e4 },
        },
      },
      'another rope scaling in layers with a window',
    ],
  ])('refuses %s', (_, config, message) => {
    expect(() => translated(config)).toThrowError(
      expect.objectContaining({ kind: 'unsupported', message: expect.stringContaining(message) }),
    )
  })

  it('ends the context where windows begin to matter that the architecture does not have', () => {
    for (const model_type of ['mistral', 'phi3']) {
      expect(translated({ model_type, sliding_window: 24 }).contextLength).toBe(24)
      expect(translated({ model_type, sliding_window: null }).contextLength).toBe(64)
    }
    expect(translated(GEMMA2).contextLength).toBe(64)
  })

  it('names the layers with a window only where they are not where llama.cpp expects them', () => {
    const key = 'gemma3.attention.sliding_window_pattern'
    const types = (letters: string) =>
      [...letters].map((letter) => (letter === 's' ? 'sliding_attention' : 'full_attention'))
    expect(translated({ ...GEMMA3, layer_types: types('ssss') }).metadata.has(key)).toBe(false)
    expect(translated({ ...GEMMA3, layer_types: types('sfsf') }).metadata.get(key)).toEqual({
      i32s: [1, 0, 1, 0],
    })
    // It would give the sliding layers' rope to five of six layers.
    expect(translated({ ...GEMMA3, layer_types: types('ffff') }).metadata.get(key)).toEqual({
      i32s: [0, 0, 0, 0],
    })
  })

  it('stacks the experts of a layer and keeps their router whole', () => {
    const tensors = new Map(translated(MOE).tensors.map((tensor) => [tensor.name, tensor]))
    expect(tensors.get('blk.1.ffn_down_exps.weight')).toMatchObject({
      shape: [4, 16, 8],
      role: 'down',
      from: [0, 1, 2, 3].map((e) => ({
        name: `model.layers.1.mlp.experts.${e}.down_proj.weight`,
        shape: [16, 8],
      })),
    })
    expect(tensors.get('blk.1.ffn_gate_inp.weight')).toMatchObject({ shape: [4, 16], role: 'vector' })
  })
})
