import type { Value } from '../../graph/values.ts'
import type { DecoderConfig } from '../../nn/config.ts'
import type { ModelBuilder } from '../../nn/model-builder.ts'
import type { Tensor } from '../../tensor.ts'
import type { TrainExample } from '../../text/conversation.ts'
import type { TokenBatch } from '../step.ts'
import type { Metrics } from './metrics.ts'

/** Inputs of a graph by name. */
export type Feeds = Readonly<Record<string, Tensor>>
/** Float32 outputs of a graph by name. */
export type Values = Readonly<Record<string, Float32Array>>

/** What an objective adds to the model's graph. */
export interface LossGraph {
  /** A scalar: `weight` · Σ of what the objective counts. */
  readonly loss: Value
  /** Further float32 outputs that the objective reads after a run. */
  readonly values: Readonly<Record<string, Value>>
}

/** A forward pass without gradients: with the parameters as they are, or as they were when the run was new. */
export type Forward<B> = (batch: B, parameters: 'current' | 'start') => Promise<Values>

/**
 * What a stage learns: how its examples become batches, the loss at the end of the graph, and what is logged. The loop,
 * the accumulation and the compiled step are the same for all of them.
 */
export interface Objective<E extends TrainExample = TrainExample, B extends TokenBatch = TokenBatch> {
  /** The loss compares with the model that the run began with, whose parameters the step then keeps. */
  readonly comparesWithStart: boolean
  /** What an example counts for in the mean loss of an optimizer step: its trained tokens, or 1. */
  weigh(example: E): number
  collate(examples: readonly E[], padId: number): B
  /** Adds the loss to a graph whose last hidden states are `hidden` [batch*seq, width]; reads the input `weight`, a scalar. */
  build(m: ModelBuilder, config: DecoderConfig, hidden: Value, weight: Value): LossGraph
  /** Feeds for every input that `build` made; those that `prepare` finds are zero here. */
  feeds(batch: B): Feeds
  /** Feeds that take forward passes of their own. */
  prepare?(batch: B, forward: Forward<B>): Promise<Feeds>
  metrics?(batch: B, values: Values, prepared: Feeds): Metrics
  /** Start value of a trainable tensor that `build` made, or undefined for any other. */
  initialize?(name: string, shape: readonly number[], seed: number): Float32Array | undefined
}
