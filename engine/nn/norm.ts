import type { Value } from '../graph/values.ts'
import type { ModelBuilder } from './model-builder.ts'

/** x / √(mean(x²) + ε) · w over the last axis (RMSNorm, arXiv:1910.07467); x is [batch*seq, width]. */
export function rmsNorm(m: ModelBuilder, x: Value, path: string, width: number, epsilon: number): Value {
  return m.g.scope(path, () => {
    const [y] = m.g.SimplifiedLayerNormalization(x, m.floatParameter(`${path}.weight`, [width]), epsilon)
    return y
  })
}
