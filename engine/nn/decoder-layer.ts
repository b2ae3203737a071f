import type { Value } from '../graph/values.ts'
import type { DecoderConfig } from '../models/config.ts'
import { type AttentionForm, attention } from './attention.ts'
import { gatedMlp } from './mlp.ts'
import { type ModelBuilder, TOKENS } from './model-builder.ts'
import { rmsNorm } from './norm.ts'
import { type RotaryTables, rotaryTables } from './rope.ts'

/** What the two forms of a model's graph differ in. */
export interface BuildForm {
  readonly attention: AttentionForm
  /** Positions that the rotary tables must cover. */
  readonly positions: number
}

/** The llama shape: embedding, pre-norm layers, final norm; returns hidden states [batch*seq, hidden]. */
export function preNormDecoder(m: ModelBuilder, config: DecoderConfig, form: BuildForm): Value {
  const tables = rotaryTables(m, config, form.positions)
  let x = m.embedding('model.embed_tokens', config.vocabSize, config.hiddenSize)
  for (let layer = 0; layer < config.layers; layer++) {
    x = preNormLayer(m, config, layer, x, tables, form.attention)
  }
  return rmsNorm(m, x, 'model.norm', config.hiddenSize, config.normEpsilon)
}

/** x + attention(norm(x)), then + mlp(norm(·)). */
function preNormLayer(
  m: ModelBuilder,
  config: DecoderConfig,
  layer: number,
  x: Value,
  tables: RotaryTables,
  form: AttentionForm,
): Value {
  const path = `model.layers.${layer}`
  const { hiddenSize, heads, keyValueHeads, headDim, normEpsilon, bias } = config
  const project = (input: Value, name: string, outFeatures: number) =>
    m.linear(
      input,
      { path: `${path}.self_attn.${name}`, inFeatures: hiddenSize, outFeatures },
      { bias: bias.queryKeyValue },
    )

  const normed = rmsNorm(m, x, `${path}.input_layernorm`, hiddenSize, normEpsilon)
  const projected = {
    query: project(normed, 'q_proj', heads * headDim),
    key: project(normed, 'k_proj', keyValueHeads * headDim),
    value: project(normed, 'v_proj', keyValueHeads * headDim),
  }
  const context = m.g.scope(`${path}.self_attn`, () => attention(m, config, layer, projected, tables, form))
  const output = { path: `${path}.self_attn.o_proj`, inFeatures: heads * headDim, outFeatures: hiddenSize }
  const attended = m.linear(context, output, { bias: bias.output, addend: x })
  const normedAgain = rmsNorm(m, attended, `${path}.post_attention_layernorm`, hiddenSize, normEpsilon)
  return gatedMlp(m, config, `${path}.mlp`, normedAgain, attended)
}

/** Logits [rows, vocabulary] of the hidden states at the flat `rows` of [batch*seq, hidden]. */
export function languageModelHead(m: ModelBuilder, config: DecoderConfig, hidden: Value, rows: Value): Value {
  const name = config.tieWordEmbeddings ? 'model.embed_tokens.weight' : 'lm_head.weight'
  if (hidden.shape[0] !== TOKENS) throw new Error(`hidden states have ${hidden.shape[0]} rows, not ${TOKENS}`)
  return m.g.scope('lm_head', () => {
    const weight = m.floatParameter(name, [config.vocabSize, config.hiddenSize])
    return m.g.Gemm(m.g.Gather(hidden, rows), weight, { transB: 1 })
  })
}
