import type { DecoderConfig } from '../nn/config.ts'
import { decoder } from '../nn/decoder-layer.ts'
import { decoderConfig } from './decoder-config.ts'
import type { Family } from './family.ts'
import { llamaNames } from './names.ts'
import type { RawConfig } from './raw-config.ts'

/** Half of each head rotates, in interleaved pairs; gate and up are one module; the output has no bias. */
function glmConfig(raw: RawConfig): DecoderConfig {
  const config = decoderConfig(raw, {
    defaults: {
      head_dim: 128,
      rms_norm_eps: 1.5625e-7,
      attention_bias: true,
      max_position_embeddings: 131_072,
    },
    rope: { partial: 0.5, interleaved: true },
  })
  return {
    ...config,
    bias: { ...config.bias, output: false },
    names: { ...llamaNames, gateUp: 'gate_up_proj' },
  }
}

/** GLM-4 in transformers' own layout (arXiv:2406.12793). */
export const glm: Family = { modelType: 'glm', parseConfig: glmConfig, build: decoder }

/** GLM-4-0414: norms after attention and mlp as well. */
export const glm4: Family = {
  modelType: 'glm4',
  parseConfig(raw) {
    const config = glmConfig(raw)
    const norms = {
      attentionInput: 'input_layernorm',
      attentionOutput: 'post_self_attn_layernorm',
      mlpInput: 'post_attention_layernorm',
      mlpOutput: 'post_mlp_layernorm',
    }
    return { ...config, names: { ...config.names, norms } }
  },
  build: decoder,
}
