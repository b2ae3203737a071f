import { decoder } from '../nn/decoder-layer.ts'
import { decoderConfig, optionalNumber } from './decoder-config.ts'
import type { Family } from './family.ts'
import { expertCounts } from './mixtral.ts'
import { llamaNames } from './names.ts'
import { malformedConfig, type RawConfig } from './raw-config.ts'

/** Qwen3 with routed experts (arXiv:2505.09388) in all layers or in those that the config names. */
export const qwen3Moe: Family = {
  modelType: 'qwen3_moe',
  parseConfig(raw) {
    const sliding = raw.use_sliding_window === true ? { window: 4096, slides: () => true } : undefined
    const config = decoderConfig(raw, {
      defaults: { num_key_value_heads: 4 },
      ...(sliding ? { sliding } : {}),
    })
    return {
      ...config,
      queryKeyNorm: 'each head',
      experts: {
        ...expertCounts(raw, { count: 128, perToken: 8 }),
        intermediateSize: optionalNumber(raw, 'moe_intermediate_size') ?? 768,
        normalizeWeights: raw.norm_topk_prob === true,
        layers: sparseLayers(raw, config.layers),
      },
      names: {
        ...llamaNames,
        experts: { block: 'mlp', router: 'gate', gateUp: ['gate_proj', 'up_proj'], down: 'down_proj' },
      },
    }
  },
  build: decoder,
}

/** Every decoder_sparse_step-th layer that mlp_only_layers does not name. */
function sparseLayers(raw: RawConfig, layers: number): Set<number> {
  const step = raw.decoder_sparse_step ?? 1
  const dense = raw.mlp_only_layers ?? []
  if (!Number.isInteger(step) || (step as number) < 1) {
    throw malformedConfig(raw, `decoder_sparse_step: ${JSON.stringify(step)} is no step`)
  }
  if (!Array.isArray(dense)) throw malformedConfig(raw, 'mlp_only_layers is no list of layers')
  const all = Array.from({ length: layers }, (_, layer) => layer)
  return new Set(all.filter((layer) => (layer + 1) % (step as number) === 0 && !dense.includes(layer)))
}
