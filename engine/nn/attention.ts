import { type Dim, multiplyDims, type Value } from '../graph/values.ts'
import type { DecoderConfig, RopeConfig } from './config.ts'
import { MASKED } from './masks.ts'
import type { ModelBuilder } from './model-builder.ts'
import { softCap } from './soft-cap.ts'

/** Rotated query [batch, heads, seq, headDim], key and value [batch, kvHeads, seq, headDim] of one layer. */
export interface AttentionInputs {
  readonly layer: number
  /** A token sees itself and the window - 1 tokens before it; null: all before it. */
  readonly window: number | null
  readonly query: Value
  readonly key: Value
  readonly value: Value
}

/** How a graph attends: over the sequence itself when training, over a cache and the new tokens when decoding. */
export interface AttentionForm {
  /**
   * softmax(scale·q·kᵀ + mask)·v as [batch, kvHeads, group, seq, headDim], where `group` heads share keys; soft-capped
   * where the config says so.
   */
  attend(m: ModelBuilder, config: DecoderConfig, inputs: AttentionInputs): Value
  /** A factor on queries and keys that their rotation shall bring along: √scale where their product is not scaled again. */
  rotationScale?(config: DecoderConfig, rope: RopeConfig): number
}

/** scale·q·kᵀ, soft-capped where the config says so; `factor` is what query and key don't have of the scale yet. */
export function scores(
  m: ModelBuilder,
  config: DecoderConfig,
  query: Value,
  key: Value,
  factor = scoreScale(config),
): Value {
  const raw = m.g.FusedMatMul(query, key, { transB: 1, alpha: factor })
  return config.scoreSoftCap === null ? raw : softCap(m, raw, config.scoreSoftCap)
}

/** The factor on q·kᵀ; of a cap c·tanh(x/c) it holds the 1/c. */
function scoreScale({ attentionScale, scoreSoftCap }: DecoderConfig): number {
  return attentionScale / (scoreSoftCap ?? 1)
}

/** Heads that share keys as the rows of one product, [batch, kvHeads, group·seq, headDim]. */
export function foldGroup(m: ModelBuilder, config: DecoderConfig, query: Value): Value {
  const { heads, keyValueHeads, headDim } = config
  const rows = multiplyDims(heads / keyValueHeads, query.shape[2]!)
  return m.g.Reshape(query, ['batch', keyValueHeads, rows, headDim])
}

/** Undoes foldGroup of `rows` queries: [batch, kvHeads, group, seq, headDim]. */
export function unfoldGroup(m: ModelBuilder, config: DecoderConfig, folded: Value, rows: Dim = 'seq'): Value {
  const { heads, keyValueHeads, headDim } = config
  return m.g.Reshape(folded, ['batch', keyValueHeads, heads / keyValueHeads, rows, headDim])
}

/** Adds a mask [1|batch, 1, 1, 1|seq, keys] to scores of `rows` queries. */
export function masked(
  m: ModelBuilder,
  config: DecoderConfig,
  raw: Value,
  mask: Value,
  rows: Dim = 'seq',
): Value {
  const { keyValueHeads, heads } = config
  const byHead = ['batch', keyValueHeads, heads / keyValueHeads, rows, raw.shape[3]!]
  return m.g.Reshape(m.g.Add(m.g.Reshape(raw, byHead), mask), raw.shape)
}

/** `mask`, and MASKED more where query and key are `window` or more places apart; both int64, to be broadcast. */
export function narrowed(m: ModelBuilder, mask: Value, queries: Value, keys: Value, window: number): Value {
  const { g } = m
  const tooFar = g.GreaterOrEqual(g.Sub(queries, keys), g.ints([window]))
  return g.Add(mask, g.Mul(g.Cast(tooFar, 'float32'), g.scalar(MASKED)))
}

/** Masks by window, each made once. `full` is the mask without one. */
export function masksByWindow(
  full: Value,
  narrow: (window: number) => Value,
): (window: number | null) => Value {
  const known = new Map<number, Value>()
  return (window) => {
    if (window === null) return full
    const mask = known.get(window) ?? narrow(window)
    known.set(window, mask)
    return mask
  }
}

/** What a mask differs for. */
export interface MaskForm {
  /** [kvHeads, group] where each head has a mask of its own. */
  readonly heads?: readonly [number, number] | undefined
  /** Each row of the batch has a mask of its own. */
  readonly perRow?: boolean
}

/** A mask [1|batch, 1|kvHeads, 1|group, seq, seq] of the tokens of this run, by window: places apart are positions apart. */
function newTokenMasks(
  m: ModelBuilder,
  { heads = [1, 1], perRow = false }: MaskForm = {},
): (window: number | null) => Value {
  const { g } = m
  const full = g.input('attention_mask', 'float32', [perRow ? 'batch' : 1, ...heads, 'seq', 'seq'])
  return masksByWindow(full, (window) => {
    const places = g.Range('seq')
    return narrowed(
      m,
      full,
      g.Reshape(places, [1, 1, 1, 'seq', 1]),
      g.Reshape(places, [1, 1, 1, 1, 'seq']),
      window,
    )
  })
}

/**
 * Attention of a sequence over itself. `attention_mask` is float32 [1, 1, 1, seq, seq]: 0 where a row may look, a
 * large negative number elsewhere; windows are the graph's own. Right padding needs no mask of its own: no real row
 * looks to its right.
 *
 * Packed rows and shifted attention have masks of another form.
 */
export function sequenceAttention(m: ModelBuilder, form?: MaskForm): AttentionForm {
  const maskFor = newTokenMasks(m, form)
  return {
    attend(builder, config, { query, key, value, window }) {
      const raw = scores(builder, config, foldGroup(builder, config, query), key)
      const weights = builder.g.Softmax(masked(builder, config, raw, maskFor(window)))
      return unfoldGroup(builder, config, builder.g.FusedMatMul(weights, value))
    },
  }
}

/** Queries of a part: fewer make smaller products, more let them meet more keys that they may not see. */
const PART = 128

/**
 * sequenceAttention for sequences of `length` tokens, whose queries go in parts: none meets keys behind its part's end, so of n
 * parts' products (n + 1) / 2n are computed.
 */
export function partedAttention(m: ModelBuilder, length: number): AttentionForm {
  const maskFor = newTokenMasks(m)
  return {
    attend(builder, config, { query, key, value, window }) {
      const { g } = builder
      const mask = maskFor(window)
      const parts: Value[] = []
      for (let from = 0; from < length; from += PART) {
        const end = Math.min(from + PART, length)
        const rows = end - from
        const queries = foldGroup(builder, config, g.Slice(query, 2, from, rows))
        const raw = scores(builder, config, queries, g.Slice(key, 2, 0, end))
        const seen = g.Slice(g.Slice(mask, 3, from, rows), 4, 0, end)
        const weights = g.Softmax(masked(builder, config, raw, seen, rows))
        const attended = g.FusedMatMul(weights, g.Slice(value, 2, 0, end))
        parts.push(unfoldGroup(builder, config, attended, rows))
      }
      return g.Concat(parts, 3, 'seq')
    },
  }
}

/** The cached form together with the rows that the caller has to keep. */
export interface CachedAttention extends AttentionForm {
  /** New keys and values of all layers, [2·layers·batch, kvHeads, seq, headDim]: key, value, key, value… */
  present(): Value
}

/**
 * Two-part attention: over `past_key.N` / `past_value.N` [batch, kvHeads, past, headDim], which the caller owns and
 * which are only read, and over the new tokens; both score blocks share one softmax. Only the new rows are returned,
 * so the cache is never copied. `past_mask` [batch, 1, 1, 1, past] hides unused places, `attention_mask`
 * [1, 1, 1, seq, seq] keeps new tokens causal. Place p of the past holds position p: windows are measured by it.
 *
 * Each head's product is one of its own, over keys that its group shares (a broadcast), and the scale is in the rotary
 * tables: with one new token and no factor, onnxruntime streams keys and values through a vector product, where a
 * product of the group's rows would first copy them into another layout.
 */
export function cachedAttention(m: ModelBuilder, config: DecoderConfig): CachedAttention {
  const { g } = m
  const maskFor = joinedMasks(m)
  const { keyValueHeads, headDim } = config
  const rows: Value[] = []
  const shared = (x: Value) => g.Reshape(x, ['batch', keyValueHeads, 1, 'seq', headDim])
  return {
    present: () => g.Concat(rows, 0),
    rotationScale: (_, rope) => (rotatesAll(config, rope) ? Math.sqrt(scoreScale(config)) : 1),
    attend(builder, _, { layer, query, key, value, window }) {
      const shape = ['batch', keyValueHeads, 1, 'past', headDim]
      const pastKey = g.input(`past_key.${layer}`, 'float32', shape)
      const pastValue = g.input(`past_value.${layer}`, 'float32', shape)
      rows.push(key, value)
      const queries = unfoldGroup(builder, config, query)
      const [newKey, newValue] = [shared(key), shared(value)]
      const scale = rotatesAll(config, config.layerAttention[layer]!.rope) ? 1 : scoreScale(config)
      const overBoth = [pastKey, newKey].map((keys) => scores(builder, config, queries, keys, scale))
      const weights = g.Softmax(g.Add(g.Concat(overBoth, 4, BOTH), maskFor(window)))
      const [overPast, overNew] = g.Split(weights, 4, ['past', 'seq'])
      return g.Add(g.FusedMatMul(overPast!, pastValue), g.FusedMatMul(overNew!, newValue))
    },
  }
}

/** Places of the past and of the new tokens, side by side. */
export const BOTH = 'past+seq'

/** Whether rotary tables reach every element of a head, and so may hold the scale. */
function rotatesAll({ headDim }: DecoderConfig, { rotaryDim }: RopeConfig): boolean {
  return rotaryDim === headDim
}

/** Masks over the past and the new tokens by window, [batch, 1, 1, seq, past+seq]; made once for all layers. */
function joinedMasks(m: ModelBuilder): (window: number | null) => Value {
  const { g } = m
  const pastMask = g.input('past_mask', 'float32', ['batch', 1, 1, 1, 'past'])
  g.bindDim('past', pastMask, 4)
  const newMaskFor = newTokenMasks(m)
  const pastMaskFor = masksByWindow(pastMask, (window) => {
    const queries = g.Reshape(m.positionIds, ['batch', 1, 1, 'seq', 1])
    return narrowed(m, pastMask, queries, g.Reshape(g.Range('past'), [1, 1, 1, 1, 'past']), window)
  })
  const known = new Map<number | null, Value>()
  return (window) => {
    const made = known.get(window)
    if (made) return made
    const parts = [
      g.Expand(pastMaskFor(window), ['batch', 1, 1, 'seq', 'past']),
      g.Expand(newMaskFor(window), ['batch', 1, 1, 'seq', 'seq']),
    ]
    const mask = g.Concat(parts, 4, BOTH)
    known.set(window, mask)
    return mask
  }
}
