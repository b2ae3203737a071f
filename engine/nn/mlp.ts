import type { Value } from '../graph/values.ts'
import type { Activation, DecoderConfig } from './config.ts'
import type { ModelBuilder } from './model-builder.ts'
import { project } from './projections.ts'

/** (act(x·gateᵀ) ⊙ x·upᵀ)·downᵀ (+ addend), a gated linear unit (arXiv:2002.05202); x is [batch*seq, hidden]. */
export function gatedMlp(
  m: ModelBuilder,
  config: DecoderConfig,
  path: string,
  x: Value,
  addend: Value | undefined,
): Value {
  const { hiddenSize, intermediateSize, names } = config
  const bias = config.bias.mlp
  const widths = [intermediateSize, intermediateSize]
  const [gate, up] = project(m, x, { path, names: names.gateUp, inFeatures: hiddenSize, widths, bias })
  const hidden = m.g.scope(path, () => m.g.Mul(activate(m, config.activation, gate!), up!))
  const down = { path: `${path}.${names.down}`, inFeatures: intermediateSize, outFeatures: hiddenSize }
  return m.linear(hidden, down, { bias, ...(addend ? { addend } : {}) })
}

/** SiLU, or GELU by way of tanh. */
export function activate(m: ModelBuilder, activation: Activation, x: Value): Value {
  return activation === 'silu' ? m.g.QuickGelu(x, 1) : m.g.Gelu(x)
}
