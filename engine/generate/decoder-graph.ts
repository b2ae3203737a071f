import type { Graph } from '../graph/graph.ts'
import { fuseAddIntoNorm, removeDeadNodes } from '../graph/passes.ts'
import type { Value } from '../graph/values.ts'
import type { OpenModel } from '../models/index.ts'
import { type AttentionForm, cachedAttention } from '../nn/attention.ts'
import type { DecoderConfig } from '../nn/config.ts'
import { languageModelHead } from '../nn/decoder-layer.ts'
import type { LinearModule } from '../nn/linear-module.ts'
import { ModelBuilder } from '../nn/model-builder.ts'
import { residentAttention } from '../nn/resident-attention.ts'

/** A model's graph for generation, and the names of what it returns. */
export interface DecoderGraph {
  readonly graph: Graph
  readonly linears: readonly LinearModule[]
  /**
   * Names of outputs; logits, their largest ids and their sums belong to the fed `rows`. `caches` are the new rows of all
   * layers in one, or the layers' whole caches where they stay on the device.
   */
  readonly outputs: { logits: string; largest: string; sum: string; caches: readonly string[] }
}

/** Which adapters a graph can take: none, plain LoRA, or DoRA as well, whose factors cost operations more. */
export const ADAPTER_FORMS = ['none', 'plain', 'scaled'] as const
export type AdapterForm = (typeof ADAPTER_FORMS)[number]

/** Builds the cached form, with inputs for stacked adapters or without any adapter. */
export function buildDecoderGraph(
  model: OpenModel,
  options: { maxPositions: number; adapters: AdapterForm; residentCache?: boolean },
): DecoderGraph {
  const builder = new ModelBuilder(model.weights, {
    stackedLora: options.adapters === 'none' ? undefined : options.adapters,
    joinProjections: true,
    packedProducts: true,
  })
  const { g } = builder
  const { attention, caches } = options.residentCache
    ? resident(builder, model.config)
    : fed(builder, model.config)
  const hidden = model.family.build(builder, model.config, { attention, positions: options.maxPositions })
  const logits = languageModelHead(builder, model.config, hidden, g.input('rows', 'int64', ['rows']))
  const largest = g.ArgMax(logits, 1)
  const sum = g.ReduceSum(logits, [1], 0)
  const kept = caches()
  const outputs = [logits, largest, sum, ...kept]
  return {
    graph: g.finish(outputs, fuseAddIntoNorm(removeDeadNodes(g.nodes, outputs))),
    linears: builder.linears,
    outputs: {
      logits: logits.name,
      largest: largest.name,
      sum: sum.name,
      caches: kept.map(({ name }) => name),
    },
  }
}

/** How a graph attends, and what it returns of keys and values once it is built. */
interface CacheForm {
  readonly attention: AttentionForm
  readonly caches: () => readonly Value[]
}

function fed(m: ModelBuilder, config: DecoderConfig): CacheForm {
  const attention = cachedAttention(m, config)
  return { attention, caches: () => [attention.present()] }
}

function resident(m: ModelBuilder, config: DecoderConfig): CacheForm {
  const attention = residentAttention(m, config)
  return { attention, caches: () => attention.caches }
}
