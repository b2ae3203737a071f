import { decoder } from '../nn/decoder-layer.ts'
import { decoderConfig } from './decoder-config.ts'
import type { Family } from './family.ts'

/** Mistral (arXiv:2310.06825): the llama shape, with a window in every layer unless sliding_window is null. */
export const mistral: Family = {
  modelType: 'mistral',
  parseConfig: (raw) => ({
    ...decoderConfig(raw, {
      defaults: { num_key_value_heads: 8, max_position_embeddings: 131_072 },
      sliding: { window: 4096, slides: () => true },
    }),
    bias: { queryKeyValue: false, output: false, mlp: false },
  }),
  build: decoder,
}
