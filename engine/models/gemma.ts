import type { DecoderConfig, ModuleNames } from '../nn/config.ts'
import { decoder } from '../nn/decoder-layer.ts'
import { decoderConfig, type FamilyRules, optionalNumber } from './decoder-config.ts'
import type { Family } from './family.ts'
import { llamaNames } from './names.ts'
import type { RawConfig } from './raw-config.ts'

const DEFAULTS = { head_dim: 256, tie_word_embeddings: true }
const TANH = 'gelu_pytorch_tanh'

/** Norms before and after attention and mlp, inside the residual. */
export const sandwichNames: ModuleNames = {
  ...llamaNames,
  norms: {
    attentionInput: 'input_layernorm',
    attentionOutput: 'post_attention_layernorm',
    mlpInput: 'pre_feedforward_layernorm',
    mlpOutput: 'post_feedforward_layernorm',
  },
}

/** What all Gemmas do: scaled embeddings, norms of (1 + w), gelu, tied embeddings. */
export function gemmaConfig(raw: RawConfig, activation: unknown, rules: FamilyRules): DecoderConfig {
  const defaults = { ...DEFAULTS, ...rules.defaults }
  const named = { field: 'hidden_activation', name: activation ?? TANH }
  const config = decoderConfig(raw, { ...rules, defaults, activation: named })
  return {
    ...config,
    embeddingScale: Math.fround(Math.sqrt(config.hiddenSize)),
    normOffset: 1,
  }
}

/** Gemma (arXiv:2403.08295). Its first releases say 'gelu' where they mean the approximation by tanh. */
export const gemma: Family = {
  modelType: 'gemma',
  parseConfig(raw) {
    const named = raw.hidden_activation ?? raw.hidden_act
    return gemmaConfig(raw, named === 'gelu' ? TANH : named, { defaults: { max_position_embeddings: 8192 } })
  },
  build: decoder,
}

/** Gemma 2 (arXiv:2408.00118): soft caps, norms before and after, a window in every second layer. */
export const gemma2: Family = {
  modelType: 'gemma2',
  parseConfig(raw) {
    const config = gemmaConfig(raw, raw.hidden_activation, {
      defaults: { max_position_embeddings: 8192 },
      sliding: { window: 4096, slides: (layer) => layer % 2 === 0, byLayerTypes: true },
    })
    return {
      ...config,
      attentionScale: 1 / Math.sqrt(optionalNumber(raw, 'query_pre_attn_scalar') ?? 256),
      scoreSoftCap: optionalNumber(raw, 'attn_logit_softcapping', 50),
      logitSoftCap: optionalNumber(raw, 'final_logit_softcapping', 30),
      names: sandwichNames,
    }
  },
  build: decoder,
}
