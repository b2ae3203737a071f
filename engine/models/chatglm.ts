import type { ModuleNames } from '../nn/config.ts'
import { decoder } from '../nn/decoder-layer.ts'
import { decoderConfig, optionalNumber } from './decoder-config.ts'
import type { Family } from './family.ts'
import { type RawConfig, unsupportedField } from './raw-config.ts'

const names: ModuleNames = {
  embedding: 'transformer.embedding.word_embeddings',
  layers: 'transformer.encoder.layers',
  finalNorm: 'transformer.encoder.final_layernorm',
  head: 'transformer.output_layer',
  attention: 'self_attention',
  queryKeyValue: 'query_key_value',
  output: 'dense',
  mlp: 'mlp',
  gateUp: 'dense_h_to_4h',
  down: 'dense_4h_to_h',
  norms: { attentionInput: 'input_layernorm', mlpInput: 'post_attention_layernorm' },
}

/** ChatGLM2, ChatGLM3 and GLM-4 in their first, remote-code layout (arXiv:2406.12793): GLM's layers, other names. */
export const chatglm: Family = {
  modelType: 'chatglm',
  parseConfig(raw) {
    refuseVariants(raw)
    const config = decoderConfig(standardFields(raw), {
      rope: { theta: 10_000 * ropeRatio(raw), partial: 0.5, interleaved: true },
    })
    const linear = raw.add_bias_linear === true
    const bias = { queryKeyValue: linear || raw.add_qkv_bias === true, output: linear, mlp: linear }
    return { ...config, bias, names }
  },
  build: decoder,
}

/**
 * The factor on rope's base in ChatGLM3 and GLM-4, where it is 50 or more. ChatGLM2-32k divides positions by the same
 * field, with a small number, and nothing else in the config tells them apart.
 */
function ropeRatio(raw: RawConfig): number {
  const ratio = optionalNumber(raw, 'rope_ratio') ?? 1
  if (ratio === 1 || ratio >= 32) return ratio
  throw unsupportedField(
    raw,
    'rope_ratio',
    ratio,
    '1, and the factors of ChatGLM3 and GLM-4 (50 and more), are',
  )
}

/** The same numbers under the names that other families use. */
function standardFields(raw: RawConfig): RawConfig {
  return {
    model_type: raw.model_type,
    quantization_config: raw.quantization_config,
    attention_dropout: raw.attention_dropout,
    hidden_dropout: raw.hidden_dropout,
    vocab_size: raw.padded_vocab_size ?? raw.vocab_size,
    hidden_size: raw.hidden_size,
    intermediate_size: raw.ffn_hidden_size,
    num_hidden_layers: raw.num_layers,
    num_attention_heads: raw.num_attention_heads,
    num_key_value_heads: raw.multi_query_group_num,
    head_dim: raw.kv_channels,
    max_position_embeddings: raw.seq_length,
    rms_norm_eps: raw.layernorm_epsilon ?? 1e-5,
    tie_word_embeddings: raw.tie_word_embeddings,
  }
}

/** Fields with the one value that is computed here; an absent field has it. */
const ONLY: Readonly<Record<string, unknown>> = {
  rmsnorm: true,
  post_layer_norm: true,
  multi_query_attention: true,
  original_rope: true,
  apply_residual_connection_post_layernorm: false,
  prefix_projection: false,
  quantization_bit: 0,
}

function refuseVariants(raw: RawConfig): void {
  if ('position_encoding_2d' in raw || 'inner_hidden_size' in raw) {
    const field = 'position_encoding_2d' in raw ? 'position_encoding_2d' : 'inner_hidden_size'
    throw unsupportedField(raw, field, raw[field], 'ChatGLM2 and later are')
  }
  for (const [field, only] of Object.entries(ONLY)) {
    const value = raw[field] ?? only
    if (value !== only) throw unsupportedField(raw, field, value, `${JSON.stringify(only)} is`)
  }
  if (raw.pre_seq_len)
    throw unsupportedField(raw, 'pre_seq_len', raw.pre_seq_len, 'a base without prefix tuning is')
}
