import { multiplyDims, type Value } from '../graph/values.ts'
import type { DecoderConfig } from '../models/config.ts'
import type { AttentionForm } from './attention.ts'
import { type ModelBuilder, TOKENS } from './model-builder.ts'
import { rmsNorm } from './norm.ts'
import { project } from './projections.ts'
import { type RotaryTables, rotate } from './rope.ts'

/** Where in the model a layer's attention stands, and what it attends with. */
export interface LayerPlace {
  readonly layer: number
  readonly tables: RotaryTables
  /** Null: all tokens before it. */
  readonly window: number | null
  readonly form: AttentionForm
}

/**
 * Grouped-query attention with rotary positions, from projections to output: [batch*seq, hidden] → the same, plus
 * `addend` where there is one.
 */
export function selfAttention(
  m: ModelBuilder,
  config: DecoderConfig,
  place: LayerPlace,
  x: Value,
  addend: Value | undefined,
): Value {
  const { heads, keyValueHeads, headDim, hiddenSize, names, bias } = config
  const path = `${names.layers}.${place.layer}.${names.attention}`
  const [queryWidth, keyWidth] = [heads * headDim, keyValueHeads * headDim]
  const [query, key, value] = project(m, x, {
    path,
    names: names.queryKeyValue,
    inFeatures: hiddenSize,
    widths: [queryWidth, keyWidth, keyWidth],
    bias: bias.queryKeyValue,
  })
  const context = m.g.scope(path, () =>
    attention(m, config, place, {
      query: positioned(m, config, `${path}.q_norm`, query!, heads, place.tables),
      key: positioned(m, config, `${path}.k_norm`, key!, keyValueHeads, place.tables),
      value: m.g.Reshape(value!, ['batch', 'seq', keyWidth]),
    }),
  )
  const output = { path: `${path}.${names.output}`, inFeatures: queryWidth, outFeatures: hiddenSize }
  return m.linear(context, output, { bias: bias.output, ...(addend ? { addend } : {}) })
}

/** Norms (where the family has them) and rotates [batch*seq, heads·headDim] → [batch, seq, heads·headDim]. */
function positioned(
  m: ModelBuilder,
  config: DecoderConfig,
  norm: string,
  x: Value,
  heads: number,
  tables: RotaryTables,
): Value {
  const { queryKeyNorm, headDim } = config
  const width = heads * headDim
  const whole = queryKeyNorm === 'all heads' ? rmsNorm(m, config, x, norm, width) : x
  const byHead = () => m.g.Reshape(whole, ['batch', 'seq', heads, headDim])
  const normed = queryKeyNorm === 'each head' ? rmsNorm(m, config, byHead(), norm, headDim) : whole
  return rotate(m, m.g.Reshape(normed, ['batch', 'seq', width]), heads, tables)
}

/** Query, key and value [batch, seq, heads·headDim] → [batch*seq, heads·headDim]. */
function attention(
  m: ModelBuilder,
  config: DecoderConfig,
  { layer, window, form }: LayerPlace,
  { query, key, value }: { query: Value; key: Value; value: Value },
): Value {
  const { g } = m
  const { heads, keyValueHeads, headDim } = config
  const group = heads / keyValueHeads
  const keysByHead = (x: Value) =>
    g.Transpose(g.Reshape(x, ['batch', 'seq', keyValueHeads, headDim]), [0, 2, 1, 3])
  const grouped = g.Transpose(
    g.Reshape(query, ['batch', 'seq', keyValueHeads, group, headDim]),
    [0, 2, 3, 1, 4],
  )
  const context = form.attend(m, config, {
    layer,
    window,
    query: g.Reshape(grouped, ['batch', keyValueHeads, multiplyDims(group, 'seq'), headDim]),
    key: keysByHead(key),
    value: keysByHead(value),
  })
  const byHead = g.Reshape(context, ['batch', keyValueHeads, group, 'seq', headDim])
  return g.Reshape(g.Transpose(byHead, [0, 3, 1, 2, 4]), [TOKENS, heads * headDim])
}
