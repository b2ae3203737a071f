import { decoder } from '../nn/decoder-layer.ts'
import { decoderConfig } from './decoder-config.ts'
import type { Family } from './family.ts'
import { llamaNames } from './names.ts'

/** OLMo 2 (arXiv:2501.00656): norms after attention and mlp instead of before, and on query and key as a whole. */
export const olmo2: Family = {
  modelType: 'olmo2',
  parseConfig: (raw) => ({
    ...decoderConfig(raw, { defaults: { rms_norm_eps: 1e-5 } }),
    queryKeyNorm: 'all heads',
    names: {
      ...llamaNames,
      norms: { attentionOutput: 'post_attention_layernorm', mlpOutput: 'post_feedforward_layernorm' },
    },
  }),
  build: decoder,
}
