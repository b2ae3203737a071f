import { multiplyDims, type Value } from '../graph/values.ts'
import type { DecoderConfig } from '../models/config.ts'
import { type ModelBuilder, TOKENS } from './model-builder.ts'
import { type RotaryTables, rotate } from './rope.ts'

/**
 * Query, keys and values of one layer. Heads that share keys are folded into the rows of one product:
 * query [batch, kvHeads, group·seq, headDim], key and value [batch, kvHeads, seq, headDim].
 */
export interface AttentionInputs {
  readonly layer: number
  readonly query: Value
  readonly key: Value
  readonly value: Value
}

/** How a graph attends: over the sequence itself when training, over a cache and the new tokens when decoding. */
export interface AttentionForm {
  /** softmax(q·kᵀ/√d + mask)·v as [batch, kvHeads, group·seq, headDim]. */
  attend(m: ModelBuilder, config: DecoderConfig, inputs: AttentionInputs): Value
}

/** Grouped-query attention with rotary positions: [batch*seq, hidden] → [batch*seq, heads·headDim]. */
export function attention(
  m: ModelBuilder,
  config: DecoderConfig,
  layer: number,
  projected: { query: Value; key: Value; value: Value },
  tables: RotaryTables,
  form: AttentionForm,
): Value {
  const { g } = m
  const { heads, keyValueHeads, headDim } = config
  const group = heads / keyValueHeads
  const sequence = (x: Value, width: number) => g.Reshape(x, ['batch', 'seq', width])
  const keysByHead = (x: Value) =>
    g.Transpose(g.Reshape(x, ['batch', 'seq', keyValueHeads, headDim]), [0, 2, 1, 3])

  const query = rotate(m, sequence(projected.query, heads * headDim), tables)
  const key = rotate(m, sequence(projected.key, keyValueHeads * headDim), tables)
  const grouped = g.Transpose(
    g.Reshape(query, ['batch', 'seq', keyValueHeads, group, headDim]),
    [0, 2, 3, 1, 4],
  )
  const context = form.attend(m, config, {
    layer,
    query: g.Reshape(grouped, ['batch', keyValueHeads, multiplyDims(group, 'seq'), headDim]),
    key: keysByHead(key),
    value: keysByHead(sequence(projected.value, keyValueHeads * headDim)),
  })
  const byHead = g.Reshape(context, ['batch', keyValueHeads, group, 'seq', headDim])
  return g.Reshape(g.Transpose(byHead, [0, 3, 1, 2, 4]), [TOKENS, heads * headDim])
}

/** Adds a mask [1|batch, 1, 1, 1|seq, keys] to scores [batch, kvHeads, group·seq, keys]. */
function addMask(m: ModelBuilder, config: DecoderConfig, scores: Value, mask: Value): Value {
  const group = config.heads / config.keyValueHeads
  const keys = scores.shape[3]!
  const byHead = m.g.Reshape(scores, ['batch', config.keyValueHeads, group, 'seq', keys])
  return m.g.Reshape(m.g.Add(byHead, mask), scores.shape)
}

/**
 * Attention of a sequence over itself. `attention_mask` is float32 [1, 1, 1, seq, seq]: 0 where a row may look, a
 * large negative number elsewhere. Right padding needs no mask of its own: no real row looks to its right.
 */
export function sequenceAttention(m: ModelBuilder): AttentionForm {
  const mask = m.g.input('attention_mask', 'float32', [1, 1, 1, 'seq', 'seq'])
  return {
    attend(builder, config, { query, key, value }) {
      const { g } = builder
      const scores = g.FusedMatMul(query, key, { transB: 1, alpha: 1 / Math.sqrt(config.headDim) })
      return g.FusedMatMul(g.Softmax(addMask(builder, config, scores, mask)), value)
    },
  }
}

/** The cached form together with the rows that the caller has to keep. */
export interface CachedAttention extends AttentionForm {
  /** New keys and values of all layers, [2·layers, batch, kvHeads, seq, headDim]: key, value, key, value… */
  present(): Value
}

/**
 * Two-part attention: over `past_key.N` / `past_value.N` [batch, kvHeads, past, headDim], which the caller owns and
 * which are only read, and over the new tokens; both score blocks share one softmax. Only the new rows are returned,
 * so the cache is never copied. `past_mask` [batch, 1, 1, 1, past] hides unused places, `attention_mask`
 * [1, 1, 1, seq, seq] keeps new tokens causal.
 */
export function cachedAttention(m: ModelBuilder): CachedAttention {
  const { g } = m
  const pastMask = g.input('past_mask', 'float32', ['batch', 1, 1, 1, 'past'])
  const newMask = g.input('attention_mask', 'float32', [1, 1, 1, 'seq', 'seq'])
  g.bindDim('past', pastMask, 4)
  const rows: Value[] = []
  return {
    present: () => g.Concat(rows, 0),
    attend(builder, config, { layer, query, key, value }) {
      const shape = ['batch', config.keyValueHeads, 'past', config.headDim]
      const pastKey = g.input(`past_key.${layer}`, 'float32', shape)
      const pastValue = g.input(`past_value.${layer}`, 'float32', shape)
      for (const row of [key, value]) rows.push(g.Reshape(row, [1, ...row.shape]))
      const score = (keys: Value, mask: Value) => {
        const scores = g.FusedMatMul(query, keys, { transB: 1, alpha: 1 / Math.sqrt(config.headDim) })
        return addMask(builder, config, scores, mask)
      }
      const scores = g.Concat([score(pastKey, pastMask), score(key, newMask)], 3)
      const [overPast, overNew] = g.Split(g.Softmax(scores), 3, ['past', 'seq'])
      return g.Add(g.FusedMatMul(overPast!, pastValue), g.FusedMatMul(overNew!, value))
    },
  }
}
