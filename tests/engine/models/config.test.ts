import { describe, expect, it } from 'vitest'
import { EngineError } from '../../../engine/errors.ts'
import { familyOf, supportedModelTypes } from '../../../engine/models/index.ts'
import type { RawConfig } from '../../../engine/models/raw-config.ts'
import { type DecoderConfig, mlpWidth } from '../../../engine/nn/config.ts'

const SIZES = {
  vocab_size: 320,
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 7,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-6,
}

function parse(modelType: string, fields: Record<string, unknown> = {}): DecoderConfig {
  const raw: RawConfig = { ...SIZES, model_type: modelType, ...fields }
  return familyOf(raw).parseConfig(raw)
}

/** What is thrown for a config: its kind and the field that it names. */
function refusal(
  modelType: string,
  fields: Record<string, unknown>,
): { kind: string; param: unknown; message: string } {
  try {
    parse(modelType, fields)
  } catch (error) {
    if (error instanceof EngineError) return { kind: error.kind, param: error.param, message: error.message }
    throw error
  }
  throw new Error(`${modelType} with ${JSON.stringify(fields)} was accepted`)
}

const windows = (config: DecoderConfig) => config.layerAttention.map(({ window }) => window)

describe("transformers' older and newer configs mean the same", () => {
  const pairs: [string, Record<string, unknown>, Record<string, unknown>][] = [
    [
      'llama',
      { rope_theta: 500_000, torch_dtype: 'bfloat16', rope_scaling: { type: 'linear', factor: 4 } },
      { dtype: 'bfloat16', rope_parameters: { rope_theta: 500_000, rope_type: 'linear', factor: 4 } },
    ],
    [
      'glm4',
      { head_dim: 32, rope_theta: 5000, partial_rotary_factor: 0.25 },
      {
        head_dim: 32,
        rope_parameters: { rope_theta: 5000, rope_type: 'default', partial_rotary_factor: 0.25 },
      },
    ],
    [
      'gemma3_text',
      {
        rope_theta: 2e6,
        rope_local_base_freq: 2e4,
        rope_scaling: { rope_type: 'linear', factor: 8 },
        sliding_window_pattern: 3,
        sliding_window: 16,
      },
      {
        rope_parameters: {
          full_attention: { rope_theta: 2e6, rope_type: 'linear', factor: 8 },
          sliding_attention: { rope_theta: 2e4, rope_type: 'default' },
        },
        layer_types: [0, 1, 2, 3, 4, 5, 6].map((i) => ((i + 1) % 3 ? 'sliding_attention' : 'full_attention')),
        sliding_window: 16,
      },
    ],
    [
      'gemma2',
      { sliding_window: 16 },
      {
        sliding_window: 16,
        layer_types: [0, 1, 2, 3, 4, 5, 6].map((i) => (i % 2 ? 'full_attention' : 'sliding_attention')),
      },
    ],
    [
      'qwen3_moe',
      { num_experts: 4, num_experts_per_tok: 2 },
      { num_local_experts: 4, num_experts_per_tok: 2 },
    ],
  ]
  it.each(pairs)('%s', (modelType, older, newer) => {
    expect(parse(modelType, older)).toEqual(parse(modelType, newer))
  })

  it('gemma ties its embeddings and rounds its activation to tanh where the file says nothing or gelu', () => {
    for (const fields of [
      {},
      { hidden_act: 'gelu' },
      { hidden_act: 'gelu_pytorch_tanh', hidden_activation: null },
    ]) {
      const config = parse('gemma', fields)
      expect(config).toMatchObject({ tieWordEmbeddings: true, activation: 'gelu_tanh', embeddingScale: 8 })
    }
  })
})

describe('windows', () => {
  it('mistral slides everywhere, by 4096 where the file leaves sliding_window out, and nowhere where it is null', () => {
    expect(windows(parse('mistral', { sliding_window: 16 }))).toEqual(Array(7).fill(16))
    expect(windows(parse('mistral'))).toEqual(Array(7).fill(4096))
    expect(windows(parse('mistral', { sliding_window: null }))).toEqual(Array(7).fill(null))
  })

  it('qwen slides from max_window_layers on, and only if use_sliding_window', () => {
    const fields = { sliding_window: 8, max_window_layers: 5 }
    expect(windows(parse('qwen2', { ...fields, use_sliding_window: false }))).toEqual(Array(7).fill(null))
    const sliding = parse('qwen2', { ...fields, use_sliding_window: true })
    expect(windows(sliding)).toEqual([null, null, null, null, null, 8, 8])
  })

  it('layer_types that a family would ignore are refused, not ignored', () => {
    const layer_types = ['full_attention', ...Array(6).fill('sliding_attention')]
    expect(refusal('mistral', { sliding_window: 16, layer_types })).toMatchObject({ param: 'layer_types' })
    expect(refusal('llama', { layer_types })).toMatchObject({ kind: 'unsupported', param: 'layer_types' })
  })
})

describe('variants that are not computed are refused by the name of their field', () => {
  const glm = {
    padded_vocab_size: 320,
    hidden_size: 64,
    ffn_hidden_size: 128,
    num_layers: 2,
    num_attention_heads: 4,
    kv_channels: 16,
    multi_query_group_num: 2,
    seq_length: 128,
  }
  const cases: [string, Record<string, unknown>, string][] = [
    ['llama', { rope_scaling: { rope_type: 'proportional', factor: 4 } }, 'rope_scaling.rope_type'],
    ['qwen3', { rope_parameters: { rope_type: 'ntk', rope_theta: 1e6 } }, 'rope_parameters.rope_type'],
    ['phi3', { resid_pdrop: 0.1 }, 'resid_pdrop'],
    ['llama', { partial_rotary_factor: 0.5 }, 'partial_rotary_factor'],
    ['llama', { hidden_act: 'relu' }, 'hidden_act'],
    ['llama', { attention_dropout: 0.1 }, 'attention_dropout'],
    ['llama', { quantization_config: { quant_method: 'bitsandbytes' } }, 'quantization_config.quant_method'],
    ['gemma2', { hidden_activation: 'relu' }, 'hidden_activation'],
    ['gemma2', { use_bidirectional_attention: true }, 'use_bidirectional_attention'],
    ['gemma3_text', { attn_logit_softcapping: 50 }, 'attn_logit_softcapping'],
    ['gemma2', { layer_types: Array(7).fill('chunked_attention') }, 'layer_types'],
    ['mixtral', { output_router_logits: true }, 'output_router_logits'],
    ['mixtral', { router_jitter_noise: 0.1 }, 'router_jitter_noise'],
    ['baichuan', { max_position_embeddings: undefined, model_max_length: 4096 }, 'max_position_embeddings'],
    ['chatglm', { ...glm, position_encoding_2d: true }, 'position_encoding_2d'],
    ['chatglm', { ...glm, rmsnorm: false }, 'rmsnorm'],
    ['chatglm', { ...glm, multi_query_attention: false }, 'multi_query_attention'],
    ['chatglm', { ...glm, original_rope: false }, 'original_rope'],
    ['chatglm', { ...glm, pre_seq_len: 128 }, 'pre_seq_len'],
    ['chatglm', { ...glm, rope_ratio: 4 }, 'rope_ratio'],
    ['chatglm', { ...glm, quantization_bit: 4 }, 'quantization_bit'],
    ['gemma3', { text_config: { model_type: 'gemma3_text' }, vision_config: {} }, 'text_config'],
    ['qwen2_5_vl', { vision_config: { depth: 32 } }, 'vision_config'],
  ]
  it.each(cases)('%s with %j', (modelType, fields, param) => {
    const { kind, param: named, message } = refusal(modelType, fields)
    expect({ kind, named }).toEqual({ kind: 'unsupported', named: param })
    expect(message).toContain(param.split('.').at(-1))
  })

  it('an unknown model_type is refused with the known ones', () => {
    const { param, message } = refusal('mamba', {})
    expect(param).toBe('model_type')
    for (const modelType of supportedModelTypes) expect(message).toContain(modelType)
  })
})

describe('mlpWidth', () => {
  it('is what one token goes through: the chosen experts, or the dense mlp of a layer without them', () => {
    const experts = { num_experts: 8, num_experts_per_tok: 3, moe_intermediate_size: 20 }
    expect(mlpWidth(parse('llama'))).toBe(128)
    expect(mlpWidth(parse('qwen3_moe', experts))).toBe(60)
    expect(mlpWidth(parse('qwen3_moe', { ...experts, mlp_only_layers: [0] }))).toBe(128)
  })
})

describe('malformed configs name what is wrong', () => {
  const cases: [string, Record<string, unknown>, RegExp][] = [
    ['llama', { hidden_size: 'wide' }, /hidden_size/],
    ['llama', { hidden_size: 66 }, /66.*4 heads/],
    ['llama', { num_key_value_heads: 3 }, /4 query heads cannot share 3/],
    ['llama', { rope_scaling: { rope_type: 'llama3', factor: 8 } }, /low_freq_factor/],
    ['llama', { rope_scaling: { type: 'dynamic' } }, /factor/],
    [
      'phi3',
      { rope_scaling: { type: 'su', short_factor: [1], long_factor: [1] } },
      /short_factor needs 8 numbers, not 1/,
    ],
    ['gemma2', { layer_types: ['full_attention'] }, /7 layers/],
    ['mistral', { sliding_window: -1 }, /sliding_window: -1/],
    ['mixtral', { num_local_experts: 2, num_experts_per_tok: 3 }, /num_experts_per_tok 3 of 2/],
    ['glm', { head_dim: 6, partial_rotary_factor: 0.5 }, /3 of 6 dimensions/],
    ['gemma2', { query_pre_attn_scalar: 'no' }, /query_pre_attn_scalar/],
    ['gemma3_text', { rope_parameters: { rope_theta: 1e6 } }, /rope_parameters needs full_attention/],
  ]
  it.each(cases)('%s with %j', (modelType, fields, message) => {
    expect(refusal(modelType, fields)).toMatchObject({
      kind: 'invalid',
      message: expect.stringMatching(message),
    })
  })
})
