import type { Value } from '../graph/values.ts'
import {
  type AttentionForm,
  BOTH,
  foldGroup,
  masked,
  masksByWindow,
  narrowed,
  scores,
  unfoldGroup,
} from './attention.ts'
import type { DecoderConfig } from './config.ts'
import { MASKED } from './masks.ts'
import type { ModelBuilder } from './model-builder.ts'

/** The form that other runtimes call, with what the graph returns for the next call. */
export interface ExportedAttention extends AttentionForm {
  /** Keys and values of all tokens so far, by layer, [batch, kvHeads, past+seq, headDim]. */
  readonly present: readonly { readonly key: Value; readonly value: Value }[]
}

/**
 * Attention as Optimum's and onnxruntime-genai's decoders have it: `past_key_values.N.key` and `.value` come in, past and
 * new tokens joined go out, and `attention_mask` int64 [batch, past+seq] is 1 where there is a token.
 */
export function exportedAttention(m: ModelBuilder, config: DecoderConfig): ExportedAttention {
  const { g } = m
  const maskFor = tokenMasks(m)
  const present: { key: Value; value: Value }[] = []
  return {
    present,
    attend(builder, _, { layer, query, key, value, window }) {
      const shape = ['batch', config.keyValueHeads, 'past', config.headDim]
      const past = (part: string) => g.input(`past_key_values.${layer}.${part}`, 'float32', shape)
      const keys = g.Concat([past('key'), key], 2, BOTH)
      const values = g.Concat([past('value'), value], 2, BOTH)
      present[layer] = { key: keys, value: values }
      const raw = scores(builder, config, foldGroup(builder, config, query), keys)
      const weights = g.Softmax(masked(builder, config, raw, maskFor(window)))
      return unfoldGroup(builder, config, g.FusedMatMul(weights, values))
    },
  }
}

/** Masks [batch, 1, 1, seq, past+seq] by window: padding, and whatever lies behind a query. */
function tokenMasks(m: ModelBuilder): (window: number | null) => Value {
  const { g } = m
  const tokens = g.input('attention_mask', 'int64', ['batch', BOTH])
  g.bindDim(BOTH, tokens, 1)
  const past = g.Sub(g.dimValue(BOTH), g.dimValue('seq'))
  const queries = g.Reshape(g.Add(g.Range('seq'), past), [1, 1, 1, 'seq', 1])
  const keys = g.Reshape(g.Range(BOTH), [1, 1, 1, 1, BOTH])
  const hidden = g.Mul(g.Sub(g.scalar(1), g.Cast(tokens, 'float32')), g.scalar(MASKED))
  const padding = g.Reshape(hidden, ['batch', 1, 1, 1, BOTH])
  const behind = g.Cast(g.GreaterOrEqual(keys, g.Add(queries, g.ints([1]))), 'float32')
  const full = g.Add(padding, g.Mul(behind, g.scalar(MASKED)))
  return masksByWindow(full, (window) => narrowed(m, full, queries, keys, window))
}
