import type { Value } from '../graph/values.ts'
import type { DecoderConfig } from './config.ts'
import type { ModelBuilder } from './model-builder.ts'

/** x / √(mean(x²) + ε) · (w + offset) over the last axis, which has `width` elements (RMSNorm, arXiv:1910.07467). */
export function rmsNorm(
  m: ModelBuilder,
  config: Pick<DecoderConfig, 'normEpsilon' | 'normOffset'>,
  x: Value,
  path: string,
  width: number,
): Value {
  return m.g.scope(path, () => {
    const stored = m.floatParameter(`${path}.weight`, [width])
    const scale = config.normOffset === 0 ? stored : m.g.Add(stored, m.g.scalar(config.normOffset))
    const [y] = m.g.SimplifiedLayerNormalization(x, scale, config.normEpsilon)
    return y
  })
}
