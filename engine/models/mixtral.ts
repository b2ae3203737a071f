import { decoder } from '../nn/decoder-layer.ts'
import { decoderConfig } from './decoder-config.ts'
import type { Family } from './family.ts'
import { llamaNames } from './names.ts'
import { malformedConfig, type RawConfig, unsupportedField } from './raw-config.ts'

/** Mixtral (arXiv:2401.04088): Mistral's layers with routed experts in place of each mlp. */
export const mixtral: Family = {
  modelType: 'mixtral',
  parseConfig(raw) {
    const config = decoderConfig(raw, {
      defaults: { num_key_value_heads: 8, rms_norm_eps: 1e-5, max_position_embeddings: 131_072 },
      sliding: { window: null, slides: () => true },
      rope: { theta: 1_000_000 },
    })
    return {
      ...config,
      bias: { queryKeyValue: false, output: false, mlp: false },
      experts: {
        ...expertCounts(raw, { count: 8, perToken: 2 }),
        intermediateSize: config.intermediateSize,
        normalizeWeights: true,
        layers: new Set(config.layerAttention.keys()),
      },
      names: {
        ...llamaNames,
        experts: { block: 'block_sparse_moe', router: 'gate', gateUp: ['w1', 'w3'], down: 'w2' },
      },
    }
  },
  build: decoder,
}

/** How many experts there are and how many each token gets; refuses a loss that would balance them in training. */
export function expertCounts(raw: RawConfig, usual: { count: number; perToken: number }): typeof usual {
  if (raw.output_router_logits) {
    throw unsupportedField(
      raw,
      'output_router_logits',
      true,
      'training without the auxiliary loss (false) is',
    )
  }
  const count = raw.num_local_experts ?? raw.num_experts ?? usual.count
  const perToken = raw.num_experts_per_tok ?? usual.perToken
  if (!isCount(count) || !isCount(perToken) || perToken > count) {
    throw malformedConfig(raw, `num_experts_per_tok ${perToken} of ${count} experts`)
  }
  return { count, perToken }
}

const isCount = (value: unknown): value is number => Number.isInteger(value) && (value as number) > 0
