import { EngineError } from '../errors.ts'
import type { Value } from '../graph/values.ts'
import type { AttentionForm } from './attention.ts'
import type { DecoderConfig, RopeConfig } from './config.ts'
import { routedExperts } from './experts.ts'
import { gatedMlp } from './mlp.ts'
import { type ModelBuilder, TOKENS } from './model-builder.ts'
import { rmsNorm } from './norm.ts'
import { rotaryTables } from './rope.ts'
import { type LayerPlace, selfAttention } from './self-attention.ts'
import { softCap } from './soft-cap.ts'

/** What the two forms of a model's graph differ in. */
export interface BuildForm {
  readonly attention: AttentionForm
  /** Positions that the rotary tables must cover. */
  readonly positions: number
}

/** A whole decoder: embedding, layers, final norm; returns hidden states [batch*seq, hidden]. */
export function decoder(m: ModelBuilder, config: DecoderConfig, form: BuildForm): Value {
  const { names, embeddingScale } = config
  const ropes = [...new Set(config.layerAttention.map(({ rope }) => rope))]
  const scale = (rope: RopeConfig) => form.attention.rotationScale?.(config, rope) ?? 1
  const tables = new Map(ropes.map((rope) => [rope, rotaryTables(m, rope, form.positions, scale(rope))]))
  const embedded = m.embedding(names.embedding, config.vocabSize, config.hiddenSize)
  let x = embeddingScale === 1 ? embedded : m.g.Mul(embedded, m.g.scalar(embeddingScale))
  for (const [layer, { rope, window }] of config.layerAttention.entries()) {
    const reached = window !== null && window < form.positions ? window : null
    const place = { layer, tables: tables.get(rope)!, window: reached, form: form.attention }
    const input = x
    x = m.g.segment(() => decoderLayer(m, config, place, input))
  }
  refuseUnread(m, config)
  return rmsNorm(m, config, x, names.finalNorm, config.hiddenSize)
}

/** Weights of layers that the config leaves out (biases, norms, more layers) would change what the model computes. */
function refuseUnread(m: ModelBuilder, { names, modelType }: DecoderConfig): void {
  const unread = m.unreadBelow(names.layers)
  if (unread.length === 0) return
  const shown =
    unread.length > 5 ? `${unread.slice(0, 5).join(', ')} and ${unread.length - 5} more` : unread.join(', ')
  throw new EngineError(
    'unsupported',
    'weights_unused',
    `the weights hold ${shown}, which a ${modelType} with this config.json does not use`,
    { param: 'config.json' },
  )
}

/**
 * x + attention(x), then + mlp(·), each with a norm before, after or both. Without one after, the residual rides in
 * the last product.
 */
export function decoderLayer(m: ModelBuilder, config: DecoderConfig, place: LayerPlace, x: Value): Value {
  const { hiddenSize, names, experts } = config
  const { norms } = names
  const path = `${names.layers}.${place.layer}`
  const norm = (value: Value, name: string) => rmsNorm(m, config, value, `${path}.${name}`, hiddenSize)
  const residual = (
    input: Value,
    before: string | undefined,
    after: string | undefined,
    block: (input: Value, addend?: Value) => Value,
  ) => {
    const normed = before === undefined ? input : norm(input, before)
    return after === undefined ? block(normed, input) : m.g.Add(input, norm(block(normed), after))
  }
  const attended = residual(x, norms.attentionInput, norms.attentionOutput, (input, addend) =>
    selfAttention(m, config, place, input, addend),
  )
  return residual(attended, norms.mlpInput, norms.mlpOutput, (input, addend) =>
    experts?.layers.has(place.layer)
      ? routedExperts(m, config, path, input, addend)
      : gatedMlp(m, config, `${path}.${names.mlp}`, input, addend),
  )
}

/** Logits [rows, vocabulary] of the hidden states at the flat `rows` of [batch*seq, hidden]. */
export function languageModelHead(m: ModelBuilder, config: DecoderConfig, hidden: Value, rows: Value): Value {
  if (hidden.shape[0] !== TOKENS) throw new Error(`hidden states have ${hidden.shape[0]} rows, not ${TOKENS}`)
  return m.g.scope('lm_head', () => modelHead(m, config)(m.g.Gather(hidden, rows)))
}

/** The head as a function of hidden states [rows, hidden]; its weight is widened once, however often it is used. */
export function modelHead(m: ModelBuilder, config: DecoderConfig): (hidden: Value) => Value {
  const { names, vocabSize, hiddenSize, logitSoftCap: cap } = config
  const module = { path: names.head, inFeatures: hiddenSize, outFeatures: vocabSize }
  let weight: Value | undefined
  return (hidden) => {
    weight ??= m.hasPackedHead(module) ? undefined : headWeight(m, config)
    const logits = weight ? m.g.Gemm(hidden, weight, { transB: 1 }) : m.packedHead(hidden, module)
    return cap === null ? logits : softCap(m, m.g.Mul(logits, m.g.scalar(1 / cap)), cap)
  }
}

function headWeight(m: ModelBuilder, config: DecoderConfig): Value {
  const { names, vocabSize, hiddenSize, tieWordEmbeddings, normalizeHead } = config
  const path = tieWordEmbeddings ? names.embedding : names.head
  const stored = m.floatParameter(`${path}.weight`, [vocabSize, hiddenSize])
  return normalizeHead ? unitRows(m, stored, hiddenSize) : stored
}

/** w / ‖w‖ for each row: a norm with rms(w) = ‖w‖ / √width. */
function unitRows(m: ModelBuilder, w: Value, width: number): Value {
  const scale = m.g.constant('float32', [width], new Float32Array(width).fill(1 / Math.sqrt(width)))
  return m.g.SimplifiedLayerNormalization(w, scale, 1e-24)[0]
}
