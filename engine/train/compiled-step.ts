import { EngineError } from '../errors.ts'
import type { OpenModel } from '../models/index.ts'
import { shiftedMask } from '../nn/masks.ts'
import { Session, type SessionOptions } from '../onnx/session.ts'
import { floatTensor, intTensor, type Tensor } from '../tensor.ts'
import { chunkFeed } from './batch.ts'
import { dropoutPool, embeddingNoise } from './noise.ts'
import { languageModel } from './objectives/language-model.ts'
import type { Feeds, Objective, Values } from './objectives/objective.ts'
import { padBatch } from './pad-batch.ts'
import { createPlaceFeeds } from './place-feeds.ts'
import type { Evaluation, Parameter, TokenBatch, TrainStep } from './step.ts'
import {
  buildStepGraph,
  longestRow,
  SHIFT_MULTIPLE,
  type StepGraph,
  type StepGraphOptions,
} from './step-graph.ts'
import { checkTargets } from './training-method.ts'

export interface CompiledStepOptions extends StepGraphOptions {
  /** Start value of a trainable tensor; its array is kept and updated by the optimizer. */
  readonly initialize: (name: string, shape: readonly number[]) => Float32Array
  readonly session?: Pick<
    SessionOptions,
    'device' | 'threads' | 'prepack' | 'bfloat16' | 'lowering' | 'profilePrefix'
  >
}

/**
 * A training step compiled to one onnxruntime session: forward, loss and gradients in a single run. Passes without
 * gradients (evaluation, the model that a preference is compared with) share a second session that is made when needed.
 */
export class CompiledStep implements TrainStep {
  readonly parameters: readonly Parameter[]
  private readonly model: OpenModel
  private readonly options: CompiledStepOptions
  private readonly objective: Objective
  private readonly step: StepGraph
  private readonly session: Session
  private readonly parameterFeeds: Feeds
  /** The parameters as a new run starts, where the objective compares with them: with LoRA that is the adapter off. */
  private readonly startFeeds: Feeds | undefined
  private readonly placeFeeds: (batch: TokenBatch) => Feeds
  private forwardOnly: { graph: StepGraph; session: Session } | undefined

  private constructor(model: OpenModel, options: CompiledStepOptions, step: StepGraph, session: Session) {
    this.model = model
    this.options = options
    this.objective = options.objective ?? languageModel
    this.step = step
    this.session = session
    this.parameters = step.builder.trainables.map(({ name, shape }) => {
      return { name, shape, data: options.initialize(name, shape) }
    })
    this.parameterFeeds = feedsOf(this.parameters)
    this.placeFeeds = createPlaceFeeds(options.packedApart ?? false)
    if (this.objective.comparesWithStart) {
      this.startFeeds = feedsOf(this.parameters.map(({ data, ...rest }) => ({ ...rest, data: data.slice() })))
    }
  }

  /** Builds and compiles the step. Throws when a target matches no module or a weight is missing or misshapen. */
  static async create(model: OpenModel, options: CompiledStepOptions): Promise<CompiledStep> {
    const step = buildStepGraph(model, options, 'training')
    checkTargets(step.builder.linears, options.method)
    const session = await Session.create(step.graph, { ...options.session, weightsFolder: model.folder })
    return new CompiledStep(model, options, step, session)
  }

  /** Nodes that the step's device has no kernel for and that run on the CPU, by name; empty for most models. */
  get fallbacks(): readonly string[] {
    return this.session.fallbacks
  }

  async run(
    batch: TokenBatch,
    weight: number,
    dropoutSeed = 0,
  ): Promise<Evaluation & { gradients: Float32Array[] }> {
    if (batch.labels.length === 0) {
      return { loss: 0, gradients: this.parameters.map(({ data }) => new Float32Array(data.length)) }
    }
    const prepared = await this.prepare(batch)
    const feeds = { ...this.trainingFeeds(batch, weight, dropoutSeed), ...prepared }
    const results = await this.session.run({ ...this.parameterFeeds, ...feeds })
    return {
      ...this.evaluationOf(batch, this.step, results, prepared),
      gradients: this.step.gradientNames.map((name) => results[name]!.data as Float32Array),
    }
  }

  async evaluate(batch: TokenBatch, weight: number): Promise<Evaluation> {
    if (batch.labels.length === 0) return { loss: 0 }
    const prepared = await this.prepare(batch)
    const { graph, session } = await this.forwardSession()
    const feeds = { ...this.parameterFeeds, ...this.batchFeeds(batch, weight), ...prepared }
    return this.evaluationOf(batch, graph, await session.run(feeds), prepared)
  }

  private async prepare(batch: TokenBatch): Promise<Feeds> {
    if (!this.objective.prepare) return {}
    const { graph, session } = await this.forwardSession()
    return this.objective.prepare(batch, async (part, parameters) => {
      const trained = parameters === 'start' ? this.startFeeds : this.parameterFeeds
      return valuesOf(graph, await session.run({ ...trained, ...this.batchFeeds(part, 1) }))
    })
  }

  private evaluationOf(
    batch: TokenBatch,
    graph: StepGraph,
    results: Record<string, Tensor>,
    prepared: Feeds,
  ): Evaluation {
    const metrics = this.objective.metrics?.(batch, valuesOf(graph, results), prepared)
    return { loss: results[graph.lossName]!.data[0] as number, metrics }
  }

  private async forwardSession(): Promise<{ graph: StepGraph; session: Session }> {
    if (!this.forwardOnly) {
      const graph = buildStepGraph(this.model, this.options, 'evaluation')
      const options = { ...this.options.session, weightsFolder: this.model.folder }
      this.forwardOnly = { graph, session: await Session.create(graph.graph, options) }
    }
    return this.forwardOnly
  }

  async release(): Promise<void> {
    await this.session.release()
    await this.forwardOnly?.session.release()
  }

  private batchFeeds(batch: TokenBatch, weight: number): Feeds {
    const { rows, length } = batch
    const limit = longestRow(this.options)
    if (length > limit) {
      throw new EngineError(
        'internal',
        'batch_too_long',
        `a batch of length ${length} exceeds maxLength ${limit}`,
      )
    }
    return {
      input_ids: intTensor(batch.inputIds, [rows, length]),
      ...this.placeFeeds(batch),
      weight: floatTensor(Float32Array.of(weight), []),
      ...chunkFeed(batch, this.options.lossChunks ?? 1),
      ...this.objective.feeds(batch),
    }
  }

  /** What only training feeds: dropout, noise and shifted attention, which evaluation goes without. */
  private trainingFeeds(original: TokenBatch, weight: number, seed: number): Feeds {
    const { neftuneAlpha, shiftAttention = false } = this.options
    const batch = shiftAttention ? padBatch(original, SHIFT_MULTIPLE) : original
    const { heads, keyValueHeads, hiddenSize } = this.model.config
    return {
      ...this.batchFeeds(batch, weight),
      ...(shiftAttention ? { attention_mask: shiftedMask(batch.length, heads, keyValueHeads) } : {}),
      ...(neftuneAlpha ? { embedding_noise: embeddingNoise(batch, hiddenSize, neftuneAlpha, seed) } : {}),
      ...this.dropoutFeed(batch, seed),
    }
  }

  private dropoutFeed(batch: TokenBatch, seed: number): Record<string, Tensor> {
    const shape = this.step.builder.dropoutPoolShape(batch.rows * batch.length)
    if (!shape || this.options.method.kind !== 'lora') return {}
    const { dropout } = this.options.method
    return { dropout_pool: dropoutPool(shape, dropout, seed) }
  }
}

function feedsOf(parameters: readonly Parameter[]): Feeds {
  return Object.fromEntries(parameters.map(({ name, shape, data }) => [name, floatTensor(data, shape)]))
}

function valuesOf({ valueNames }: StepGraph, results: Record<string, Tensor>): Values {
  const entries = Object.entries(valueNames)
  return Object.fromEntries(entries.map(([key, name]) => [key, results[name]!.data as Float32Array]))
}
