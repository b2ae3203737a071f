import { decoder } from '../nn/decoder-layer.ts'
import { decoderConfig } from './decoder-config.ts'
import type { Family } from './family.ts'
import { llamaNames } from './names.ts'

/** Phi-3 and Phi-4 (arXiv:2404.14219): the llama shape with one module for query, key, value and one for gate, up. */
export const phi3: Family = {
  modelType: 'phi3',
  parseConfig: (raw) => ({
    ...decoderConfig(
      { original_max_position_embeddings: 4096, ...raw },
      {
        defaults: { rms_norm_eps: 1e-5, max_position_embeddings: 4096 },
        sliding: { window: null, slides: () => true },
        rope: { partial: 1, longRopeAlone: true },
      },
    ),
    bias: { queryKeyValue: false, output: false, mlp: false },
    names: { ...llamaNames, queryKeyValue: 'qkv_proj', gateUp: 'gate_up_proj' },
  }),
  build: decoder,
}
