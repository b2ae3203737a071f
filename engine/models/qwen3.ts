import { decoder } from '../nn/decoder-layer.ts'
import { decoderConfig } from './decoder-config.ts'
import type { Family } from './family.ts'
import { qwenSliding } from './qwen2.ts'

/** Qwen3 (arXiv:2505.09388): the llama shape with a norm on each head of query and key. */
export const qwen3: Family = {
  modelType: 'qwen3',
  parseConfig: (raw) => ({
    ...decoderConfig(raw, { defaults: { head_dim: 128 }, sliding: qwenSliding(raw) }),
    queryKeyNorm: 'each head',
  }),
  build: decoder,
}
