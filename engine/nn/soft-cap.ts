import type { Value } from '../graph/values.ts'
import type { ModelBuilder } from './model-builder.ts'

/** cap · tanh(x), of values x that are divided by cap already (Gemma 2, arXiv:2408.00118). */
export function softCap(m: ModelBuilder, x: Value, cap: number): Value {
  return m.g.Mul(m.g.Tanh(x), m.g.scalar(cap))
}
