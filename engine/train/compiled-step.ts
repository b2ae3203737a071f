import {
  type LayerChoice,
  noSuchTarget,
  type TargetModules,
  targetedPaths,
  unmatchedTargets,
} from '../adapter/targets.ts'
import { backward } from '../autodiff/backward.ts'
import { EngineError } from '../errors.ts'
import type { Graph } from '../graph/graph.ts'
import { fuseAddIntoGemm, lowerCrossEntropy, orderForMemory, removeDeadNodes } from '../graph/passes.ts'
import type { OpenModel } from '../models/index.ts'
import { sequenceAttention } from '../nn/attention.ts'
import type { LinearModule } from '../nn/linear-module.ts'
import { shiftedMask } from '../nn/masks.ts'
import { type LoraTarget, ModelBuilder } from '../nn/model-builder.ts'
import { Session, type SessionOptions } from '../onnx/session.ts'
import { floatTensor, intTensor, type Tensor } from '../tensor.ts'
import { chunkFeed } from '../text/batch.ts'
import { dropoutPool, embeddingNoise } from './noise.ts'
import { languageModel } from './objectives/language-model.ts'
import type { Feeds, Objective, Values } from './objectives/objective.ts'
import { padBatch } from './pad-batch.ts'
import { createPlaceFeeds } from './place-feeds.ts'
import type { Evaluation, Parameter, TokenBatch, TrainStep } from './step.ts'

/** LoRA as a run asks for it. */
export interface LoraMethod {
  readonly kind: 'lora'
  readonly rank: number
  /** alpha / rank, or alpha / √rank for rsLoRA. */
  readonly scale: number
  /** Probability of dropping an input of the branch, 0 to 1. */
  readonly dropout: number
  /** 'all' linear modules but the head and routed experts, or PEFT's target_modules: names, or one expression for whole paths. */
  readonly targets: TargetModules
  /** Only in some layers. */
  readonly layers?: LayerChoice
  /** Rank and scale of a module, where they are not the same for all. */
  readonly sizeOf?: (modulePath: string) => { rank: number; scale: number }
  /** Learn the magnitude of each row apart from its direction (DoRA, arXiv:2402.09353). */
  readonly dora?: boolean
  /** Whether a tensor of the base is trained as a whole beside the adapter (modules_to_save). */
  readonly saves?: (tensor: string) => boolean
}

/** What is trained: an adapter, or weights of the base: all of them, or those that `trains` says. */
export type TrainingMethod =
  | LoraMethod
  | { readonly kind: 'full'; readonly trains?: (tensor: string) => boolean }

export interface CompiledStepOptions {
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
  /** Parts into which the loss is cut, so that fewer logits are in memory at a time; 1 when left out. */
  readonly lossChunks?: number
  /** Start value of a trainable tensor; its array is kept and updated by the optimizer. */
  readonly initialize: (name: string, shape: readonly number[]) => Float32Array
  readonly session?: Pick<SessionOptions, 'device' | 'threads' | 'prepack' | 'profilePrefix'>
}

interface StepGraph {
  readonly graph: Graph
  readonly builder: ModelBuilder
  readonly lossName: string
  /** Outputs that the objective reads, by its own names for them. */
  readonly valueNames: Readonly<Record<string, string>>
  /** Outputs holding the gradients, in the order of the builder's trainables; empty for evaluation. */
  readonly gradientNames: readonly string[]
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
    const limit = longest(this.options)
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

/** The graph of a training step, or of its forward pass alone. */
export function buildStepGraph(
  model: OpenModel,
  options: CompiledStepOptions,
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
  const form = { attention, positions: longest(options) }
  const hidden = model.family.build(builder, model.config, form)
  const weight = g.input('weight', 'float32', [])
  const { loss, values } = g.scope('objective', () => objective.build(builder, model.config, hidden, weight))
  const trained = builder.trainables.map(({ value }) => value)
  const recompute = checkpointing ? g.segments : []
  const gradients = training ? g.scope('backward', () => backward(g, loss, trained, { recompute })) : []
  const outputs = [...gradients, ...Object.values(values), loss]
  const lowered = lowerCrossEntropy(g, removeDeadNodes(g.nodes, outputs))
  const fused = fuseAddIntoGemm(lowered, outputs)
  return {
    graph: g.finish(outputs, orderForMemory(fused, gradients, loss)),
    builder,
    lossName: loss.name,
    valueNames: Object.fromEntries(Object.entries(values).map(([key, value]) => [key, value.name])),
    gradientNames: gradients.map((gradient) => gradient.name),
  }
}

/** Shifted attention parts a sequence into four groups and halves those. */
const SHIFT_MULTIPLE = 8

/** Tokens of the longest sequence, with the padding that its attention needs. */
function longest({ maxLength, shiftAttention }: CompiledStepOptions): number {
  return shiftAttention ? Math.ceil(maxLength / SHIFT_MULTIPLE) * SHIFT_MULTIPLE : maxLength
}

function feedsOf(parameters: readonly Parameter[]): Feeds {
  return Object.fromEntries(parameters.map(({ name, shape, data }) => [name, floatTensor(data, shape)]))
}

function valuesOf({ valueNames }: StepGraph, results: Record<string, Tensor>): Values {
  const entries = Object.entries(valueNames)
  return Object.fromEntries(entries.map(([key, name]) => [key, results[name]!.data as Float32Array]))
}

function trainedTensors(method: TrainingMethod): (tensor: string) => boolean {
  if (method.kind === 'lora') return method.saves ?? (() => false)
  return method.trains ?? (() => true)
}

/** The adapter of each module; dropout is for training alone. */
function adapterOf(method: LoraMethod, training: boolean): (module: LinearModule) => LoraTarget | undefined {
  const { rank, scale, sizeOf, dora } = method
  return (module) =>
    targetedPaths([module], method.targets, method.layers).size > 0 &&
    !method.saves?.(`${module.path}.weight`)
      ? {
          ...(sizeOf?.(module.path) ?? { rank, scale }),
          dropout: training ? method.dropout : 0,
          magnitude: dora ? 'trained' : undefined,
        }
      : undefined
}

function checkTargets(linears: readonly LinearModule[], method: TrainingMethod): void {
  if (method.kind !== 'lora') return
  const missing = unmatchedTargets(linears, method.targets, method.layers)
  if (missing.length > 0) throw noSuchTarget(missing, linears)
}
