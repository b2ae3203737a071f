import { backward } from '../autodiff/backward.ts'
import type { GraphBuilder } from '../graph/builder.ts'
import type { Graph, Node } from '../graph/graph.ts'
import { keepAsHalf } from '../graph/half-activations.ts'
import { fuseAddIntoGemm, lowerCrossEntropy, orderForMemory, removeDeadNodes } from '../graph/passes.ts'
import type { OpenModel } from '../models/index.ts'
import { sequenceAttention } from '../nn/attention.ts'
import { ModelBuilder } from '../nn/model-builder.ts'
import { languageModel } from './objectives/language-model.ts'
import type { Objective } from './objectives/objective.ts'
import { adapterOf, type TrainingMethod, trainedTensors } from './training-method.ts'

/** What shapes a step's graph. */
export interface StepGraphOptions {
  readonly method: TrainingMethod
  /** What the stage learns; next tokens when left out. */
  readonly objective?: Objective
  /** Longest sequence that will be fed, in tokens. */
  readonly maxLength: number
  /** Alpha of the noise on embedded tokens while training; none when left out. */
  readonly neftuneAlpha?: number | undefined
  /** Train with LongLoRA's shifted sparse attention. */
  readonly shiftAttention?: boolean
  /** Examples that are packed into one row do not see each other. */
  readonly packedApart?: boolean
  /** Compute each layer's forward pass again for its backward pass instead of keeping its results. */
  readonly checkpointing?: boolean
  /** Keep what the backward pass reads of the layers as float16 (graph/half-activations.ts). */
  readonly halfActivations?: boolean
  /** Parts into which the loss is cut, so that fewer logits are in memory at a time; 1 when left out. */
  readonly lossChunks?: number
}

/** A graph with what its reader must know of it. */
export interface StepGraph {
  readonly graph: Graph
  readonly builder: ModelBuilder
  readonly lossName: string
  /** Outputs that the objective reads, by its own names for them. */
  readonly valueNames: Readonly<Record<string, string>>
  /** Outputs holding the gradients, in the order of the builder's trainables; empty for evaluation. */
  readonly gradientNames: readonly string[]
}

/** The graph of a training step, or of its forward pass alone. */
export function buildStepGraph(
  model: OpenModel,
  options: StepGraphOptions,
  purpose: 'training' | 'evaluation',
): StepGraph {
  const { method, objective = languageModel, checkpointing = false } = options
  const training = purpose === 'training'
  const shifted = training && (options.shiftAttention ?? false)
  const { heads, keyValueHeads } = model.config
  const builder = new ModelBuilder(model.weights, {
    trains: trainedTensors(method),
    embeddingNoise: training && Boolean(options.neftuneAlpha),
    lossChunks: options.lossChunks ?? 1,
    ...(method.kind === 'lora' ? { lora: adapterOf(method, training) } : {}),
  })
  const { g } = builder
  const attention = sequenceAttention(builder, {
    perRow: options.packedApart ?? false,
    heads: shifted ? [keyValueHeads, heads / keyValueHeads] : undefined,
  })
  const form = { attention, positions: longestRow(options) }
  const hidden = model.family.build(builder, model.config, form)
  const weight = g.input('weight', 'float32', [])
  const { loss, values } = g.scope('objective', () => objective.build(builder, model.config, hidden, weight))
  const trained = builder.trainables.map(({ value }) => value)
  const recompute = checkpointing ? g.segments : []
  const forward = { all: namesOf(g.nodes), layers: namesOf(layersOf(g)) }
  const gradients = training ? g.scope('backward', () => backward(g, loss, trained, { recompute })) : []
  const outputs = [...gradients, ...Object.values(values), loss]
  const lowered = lowerCrossEntropy(g, removeDeadNodes(g.nodes, outputs))
  const fused = fuseAddIntoGemm(lowered, outputs)
  const kept = options.halfActivations ? keepAsHalf(fused, forward) : fused
  return {
    graph: g.finish(outputs, orderForMemory(kept, gradients, loss)),
    builder,
    lossName: loss.name,
    valueNames: Object.fromEntries(Object.entries(values).map(([key, value]) => [key, value.name])),
    gradientNames: gradients.map((gradient) => gradient.name),
  }
}

function layersOf({ nodes, segments }: GraphBuilder): Node[] {
  return segments.flatMap(({ start, end }) => nodes.slice(start, end))
}

function namesOf(nodes: readonly Node[]): Set<string> {
  return new Set(nodes.flatMap(({ outputs }) => outputs.map(({ name }) => name)))
}

/** Shifted attention parts a sequence into four groups and halves those, so its rows are padded to a multiple of this. */
export const SHIFT_MULTIPLE = 8

/** Tokens of the longest row, with the padding that its attention needs. */
export function longestRow({ maxLength, shiftAttention }: StepGraphOptions): number {
  return shiftAttention ? Math.ceil(maxLength / SHIFT_MULTIPLE) * SHIFT_MULTIPLE : maxLength
}
