import { preNormDecoder } from '../nn/decoder-layer.ts'
import { commonDecoderConfig, unsupportedField } from './config.ts'
import type { Family } from './family.ts'

/** Qwen2 and Qwen2.5 (arXiv:2407.10671): the llama shape with biases on query, key and value. */
export const qwen2: Family = {
  modelType: 'qwen2',
  parseConfig(raw) {
    if (raw.use_sliding_window === true) {
      throw unsupportedField(raw, 'use_sliding_window', true, 'full attention (false) is')
    }
    return { ...commonDecoderConfig(raw), bias: { queryKeyValue: true, output: false, mlp: false } }
  },
  build: preNormDecoder,
}
