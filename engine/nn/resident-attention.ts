import { shapeSize, type Value } from '../graph/values.ts'
import {
  type AttentionForm,
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

/** The form for devices that keep their outputs, together with the caches of all layers: key, value, key, value… */
export interface ResidentAttention extends AttentionForm {
  readonly caches: readonly Value[]
}

/**
 * Attention over a cache that stays on the device: `cache.N` float32 [slots, kvHeads, places, headDim] come in and go
 * out again with the new rows in their places, so that nothing but tokens and logits crosses to the host. A sequence
 * of the batch is in the slot that `slots` int64 [batch] names; `cache_rows` int64 [batch·kvHeads·seq, 3] tells
 * slot, head and place of each new row, and `places` counts 0, 1, … up to their number. Place p holds position p, so what
 * lies behind a query is hidden by its position, whatever stands there.
 */
export function residentAttention(m: ModelBuilder, config: DecoderConfig): ResidentAttention {
  const { g } = m
  const { keyValueHeads, headDim } = config
  const rows = shapeSize(['batch', keyValueHeads, 'seq'])
  const slots = g.input('slots', 'int64', ['batch'])
  const newRows = g.input('cache_rows', 'int64', [rows, 3])
  const places = g.input('places', 'int64', ['places'])
  g.bindDim('places', places, 0)
  const maskFor = placeMasks(m, places)
  const caches: Value[] = []
  const extended = (value: Value): Value => {
    const shape = ['slots', keyValueHeads, 'places', headDim]
    const input = g.input(`cache.${caches.length}`, 'float32', shape)
    const output = g.ScatterND(input, newRows, g.Reshape(value, [rows, headDim]), 'none')
    caches.push(output)
    return g.Gather(output, slots)
  }
  return {
    caches,
    attend(builder, _, { query, key, value, window }) {
      const [keys, values] = [extended(key), extended(value)]
      const raw = scores(builder, config, foldGroup(builder, config, query), keys)
      const weights = g.Softmax(masked(builder, config, raw, maskFor(window)))
      return unfoldGroup(builder, config, g.FusedMatMul(weights, values))
    },
  }
}

/** Masks [batch, 1, 1, seq, places] by window: what lies behind a query, or too far before it. */
function placeMasks(m: ModelBuilder, places: Value): (window: number | null) => Value {
  const { g } = m
  const queries = g.Reshape(m.positionIds, ['batch', 1, 1, 'seq', 1])
  const keys = g.Reshape(places, [1, 1, 1, 1, 'places'])
  const behind = g.Cast(g.GreaterOrEqual(keys, g.Add(queries, g.ints([1]))), 'float32')
  const full = g.Mul(behind, g.scalar(MASKED))
  return masksByWindow(full, (window) => narrowed(m, full, queries, keys, window))
}
