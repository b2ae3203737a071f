import { sequenceAttention } from '../nn/attention.ts'
import { type LinearModule, ModelBuilder } from '../nn/model-builder.ts'
import type { OpenModel } from './index.ts'

/**
 * The linear modules that an adapter can lie on, in the order in which the model uses them; embeddings, head and routers
 * are none. Nothing is loaded or computed.
 * @throws EngineError for missing and misshapen weights.
 */
export function linearModules({ family, config, weights }: OpenModel): readonly LinearModule[] {
  const builder = new ModelBuilder(weights, {})
  family.build(builder, config, { attention: sequenceAttention(builder), positions: 1 })
  return builder.linears
}
