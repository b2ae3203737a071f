import { preNormDecoder } from '../nn/decoder-layer.ts'
import { commonDecoderConfig } from './config.ts'
import type { Family } from './family.ts'

/** Llama 2 and 3 (arXiv:2307.09288, arXiv:2407.21783), with Llama 3's rope scaling, and models of their shape. */
export const llama: Family = {
  modelType: 'llama',
  parseConfig(raw) {
    const attentionBias = raw.attention_bias === true
    return {
      ...commonDecoderConfig(raw),
      bias: { queryKeyValue: attentionBias, output: attentionBias, mlp: raw.mlp_bias === true },
    }
  },
  build: preNormDecoder,
}
