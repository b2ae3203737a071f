import type { Value } from '../graph/values.ts'
import type { AttentionForm, AttentionInputs } from './attention.ts'
import type { DecoderConfig } from './config.ts'
import { type ModelBuilder, TOKENS } from './model-builder.ts'
import { rmsNorm } from './norm.ts'
import { project, projectJoined } from './projections.ts'
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
  const { heads, keyValueHeads, headDim, hiddenSize, names, bias, queryKeyNorm } = config
  const path = `${names.layers}.${place.layer}.${names.attention}`
  const [queryWidth, keyWidth] = [heads * headDim, keyValueHeads * headDim]
  const projections = {
    path,
    names: names.queryKeyValue,
    inFeatures: hiddenSize,
    widths: [queryWidth, keyWidth, keyWidth],
    bias: bias.queryKeyValue,
  }
  const joined = queryKeyNorm === 'none' ? projectJoined(m, x, projections) : undefined
  const parts = joined ? undefined : project(m, x, projections)
  const context = m.g.scope(path, () => {
    const inputs = joined
      ? rotatedTogether(m, config, joined, place.tables)
      : rotatedApart(m, config, path, parts!, place.tables)
    const { layer, window, form } = place
    const attended = form.attend(m, config, { layer, window, ...inputs })
    return m.g.Reshape(m.g.Transpose(attended, [0, 3, 1, 2, 4]), [TOKENS, queryWidth])
  })
  const output = { path: `${path}.${names.output}`, inFeatures: queryWidth, outFeatures: hiddenSize }
  return m.linear(context, output, { bias: bias.output, ...(addend ? { addend } : {}) })
}

type ByHead = Pick<AttentionInputs, 'query' | 'key' | 'value'>

/** Query, key and value of one product [batch*seq, (heads + 2·kvHeads)·headDim], by head, in few operations. */
function rotatedTogether(m: ModelBuilder, config: DecoderConfig, x: Value, tables: RotaryTables): ByHead {
  const { heads, keyValueHeads, headDim } = config
  const [queryKey, value] = m.g.Split(byHead(m, x, heads + 2 * keyValueHeads, headDim), 1, [
    heads + keyValueHeads,
    keyValueHeads,
  ])
  const rotated = rotate(m, queryKey!, heads + keyValueHeads, tables)
  const [query, key] = m.g.Split(rotated, 1, [heads, keyValueHeads])
  return { query: query!, key: key!, value: value! }
}

/** Each by itself, with norms where the family has them. */
function rotatedApart(
  m: ModelBuilder,
  config: DecoderConfig,
  path: string,
  [query, key, value]: readonly Value[],
  tables: RotaryTables,
): ByHead {
  const { heads, keyValueHeads, headDim } = config
  return {
    query: byHead(m, positioned(m, config, `${path}.q_norm`, query!, heads, tables), heads, headDim),
    key: byHead(
      m,
      positioned(m, config, `${path}.k_norm`, key!, keyValueHeads, tables),
      keyValueHeads,
      headDim,
    ),
    value: byHead(m, value!, keyValueHeads, headDim),
  }
}

/** [batch*seq, heads·headDim] or [batch, seq, heads·headDim] → [batch, heads, seq, headDim]. */
function byHead(m: ModelBuilder, x: Value, heads: number, headDim: number): Value {
  return m.g.Transpose(m.g.Reshape(x, ['batch', 'seq', heads, headDim]), [0, 2, 1, 3])
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
