import type { RopeConfig } from '../nn/config.ts'
import { decoder } from '../nn/decoder-layer.ts'
import { optionalNumber } from './decoder-config.ts'
import type { Family } from './family.ts'
import { gemmaConfig, sandwichNames } from './gemma.ts'
import { malformedConfig, type RawConfig, unsupportedField } from './raw-config.ts'
import { parseRopeAt } from './rope-config.ts'

/** Gemma 3 without its vision tower (arXiv:2503.19786): q/k norms, and a rope of its own for layers with a window. */
export const gemma3Text: Family = {
  modelType: 'gemma3_text',
  parseConfig(raw) {
    if (raw.attn_logit_softcapping) {
      throw unsupportedField(raw, 'attn_logit_softcapping', raw.attn_logit_softcapping, 'null is')
    }
    const pattern = optionalNumber(raw, 'sliding_window_pattern') ?? 6
    const config = gemmaConfig(raw, raw.hidden_activation, {
      defaults: { max_position_embeddings: 131_072 },
      sliding: { window: 4096, slides: (layer) => (layer + 1) % pattern !== 0, byLayerTypes: true },
      ropeOf: (headDim, slides) => gemma3Rope(raw, headDim, slides),
    })
    return {
      ...config,
      attentionScale: 1 / Math.sqrt(optionalNumber(raw, 'query_pre_attn_scalar') ?? 256),
      logitSoftCap: optionalNumber(raw, 'final_logit_softcapping'),
      queryKeyNorm: 'each head',
      names: sandwichNames,
    }
  },
  build: decoder,
}

/** rope_parameters by kind of layer; before transformers 5 rope_theta, rope_scaling and rope_local_base_freq. */
function gemma3Rope(raw: RawConfig, headDim: number, slides: boolean): RopeConfig {
  const kind = slides ? 'sliding_attention' : 'full_attention'
  const options = { headDim, theta: slides ? 10_000 : 1_000_000 }
  if (raw.rope_parameters) {
    const { full_attention, sliding_attention } = raw.rope_parameters as Record<string, unknown>
    if (!full_attention && !sliding_attention) {
      throw malformedConfig(raw, 'rope_parameters needs full_attention and sliding_attention')
    }
    const rope = slides ? sliding_attention : full_attention
    return parseRopeAt(raw, `rope_parameters.${kind}`, rope, options)
  }
  const old = slides
    ? { rope_theta: raw.rope_local_base_freq }
    : { ...(raw.rope_scaling as object | null), rope_theta: raw.rope_theta }
  return parseRopeAt(raw, slides ? 'rope_local_base_freq' : 'rope_scaling', old, options)
}
