import type { Value } from '../graph/values.ts'
import type { DecoderConfig } from '../models/config.ts'
import type { ModelBuilder } from './model-builder.ts'

/** residual + (silu(x·gateᵀ) ⊙ x·upᵀ)·downᵀ (SwiGLU, arXiv:2002.05202); x is [batch*seq, hidden]. */
export function gatedMlp(
  m: ModelBuilder,
  config: DecoderConfig,
  path: string,
  x: Value,
  residual: Value,
): Value {
  const { hiddenSize, intermediateSize } = config
  const bias = config.bias.mlp
  const wide = { inFeatures: hiddenSize, outFeatures: intermediateSize }
  const gate = m.linear(x, { path: `${path}.gate_proj`, ...wide }, { bias })
  const up = m.linear(x, { path: `${path}.up_proj`, ...wide }, { bias })
  const hidden = m.g.scope(path, () => m.g.Mul(m.g.QuickGelu(gate, 1), up))
  const down = { path: `${path}.down_proj`, inFeatures: intermediateSize, outFeatures: hiddenSize }
  return m.linear(hidden, down, { bias, addend: residual })
}
