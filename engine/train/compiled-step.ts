import { backward } from '../autodiff/backward.ts'
import { EngineError } from '../errors.ts'
import type { Graph } from '../graph/graph.ts'
import { fuseAddIntoGemm, orderForMemory, removeDeadNodes } from '../graph/passes.ts'
import type { OpenModel } from '../models/index.ts'
import { sequenceAttention } from '../nn/attention.ts'
import { languageModelHead } from '../nn/decoder-layer.ts'
import { weightedCrossEntropy } from '../nn/loss.ts'
import { causalMask, consecutivePositions } from '../nn/masks.ts'
import { type LinearModule, ModelBuilder } from '../nn/model-builder.ts'
import { Session, type SessionOptions } from '../onnx/session.ts'
import { elementCount, floatTensor, intTensor, type Tensor } from '../tensor.ts'
import { createRandom } from './random.ts'
import type { Parameter, TokenBatch, TrainStep } from './step.ts'

/** LoRA as a run asks for it. */
export interface LoraMethod {
  readonly kind: 'lora'
  readonly rank: number
  /** alpha / rank, or alpha / √rank for rsLoRA. */
  readonly scale: number
  /** Probability of dropping an input of the branch, 0 to 1. */
  readonly dropout: number
  /** 'all' linear modules but the head, or names that the modules' paths end with ('q_proj', 'mlp.up_proj'). */
  readonly targets: 'all' | readonly string[]
}

/** What is trained: an adapter, or every weight. */
export type TrainingMethod = LoraMethod | { readonly kind: 'full' }

export interface CompiledStepOptions {
  readonly method: TrainingMethod
  /** Longest sequence that will be fed, in tokens. */
  readonly maxLength: number
  /** Start value of a trainable tensor; its array is kept and updated by the optimizer. */
  readonly initialize: (name: string, shape: readonly number[]) => Float32Array
  readonly session?: Pick<SessionOptions, 'threads' | 'prepack' | 'profilePrefix'>
}

interface StepGraph {
  readonly graph: Graph
  readonly builder: ModelBuilder
  readonly lossName: string
  /** Outputs holding the gradients, in the order of the builder's trainables; empty for evaluation. */
  readonly gradientNames: readonly string[]
}

/** A training step compiled to one onnxruntime session: forward, loss and gradients in a single run. */
export class CompiledStep implements TrainStep {
  readonly parameters: readonly Parameter[]
  private readonly model: OpenModel
  private readonly options: CompiledStepOptions
  private readonly step: StepGraph
  private readonly session: Session
  private readonly parameterFeeds: Record<string, Tensor>
  private readonly shapeFeeds = new Map<number, Tensor>()
  private evaluation: { graph: StepGraph; session: Session } | undefined

  private constructor(model: OpenModel, options: CompiledStepOptions, step: StepGraph, session: Session) {
    this.model = model
    this.options = options
    this.step = step
    this.session = session
    this.parameters = step.builder.trainables.map(({ name, shape }) => {
      return { name, shape, data: options.initialize(name, shape) }
    })
    this.parameterFeeds = Object.fromEntries(
      this.parameters.map(({ name, shape, data }) => [name, floatTensor(data, shape)]),
    )
  }

  /** Builds and compiles the step. Throws when a target matches no module or a weight is missing or misshapen. */
  static async create(model: OpenModel, options: CompiledStepOptions): Promise<CompiledStep> {
    const step = buildStepGraph(model, options, 'training')
    checkTargets(step.builder.linears, options.method)
    const session = await Session.create(step.graph, { ...options.session, weightsFolder: model.folder })
    return new CompiledStep(model, options, step, session)
  }

  async run(
    batch: TokenBatch,
    tokenWeight: number,
    dropoutSeed = 0,
  ): Promise<{ loss: number; gradients: Float32Array[] }> {
    if (batch.labels.length === 0) {
      return { loss: 0, gradients: this.parameters.map(({ data }) => new Float32Array(data.length)) }
    }
    const feeds = { ...this.batchFeeds(batch, tokenWeight), ...this.dropoutFeed(batch, dropoutSeed) }
    const results = await this.session.run(feeds)
    return {
      loss: results[this.step.lossName]!.data[0] as number,
      gradients: this.step.gradientNames.map((name) => results[name]!.data as Float32Array),
    }
  }

  async evaluate(batch: TokenBatch, tokenWeight: number): Promise<number> {
    if (batch.labels.length === 0) return 0
    if (!this.evaluation) {
      const graph = buildStepGraph(this.model, this.options, 'evaluation')
      const options = { ...this.options.session, weightsFolder: this.model.folder }
      this.evaluation = { graph, session: await Session.create(graph.graph, options) }
    }
    const { graph, session } = this.evaluation
    const results = await session.run(this.batchFeeds(batch, tokenWeight))
    return results[graph.lossName]!.data[0] as number
  }

  async release(): Promise<void> {
    await this.session.release()
    await this.evaluation?.session.release()
  }

  private batchFeeds(batch: TokenBatch, tokenWeight: number): Record<string, Tensor> {
    const { rows, length } = batch
    if (length > this.options.maxLength) {
      const limit = this.options.maxLength
      throw new EngineError(
        'internal',
        'batch_too_long',
        `a batch of length ${length} exceeds maxLength ${limit}`,
      )
    }
    return {
      ...this.parameterFeeds,
      input_ids: intTensor(batch.inputIds, [rows, length]),
      position_ids: consecutivePositions(rows, length),
      attention_mask: this.maskFor(length),
      rows: intTensor(batch.trainedPositions, [batch.trainedPositions.length]),
      labels: intTensor(batch.labels, [batch.labels.length]),
      token_weight: floatTensor(Float32Array.of(tokenWeight), []),
    }
  }

  private maskFor(length: number): Tensor {
    const known = this.shapeFeeds.get(length)
    if (known) return known
    if (this.shapeFeeds.size >= 16) this.shapeFeeds.clear()
    const mask = causalMask(length)
    this.shapeFeeds.set(length, mask)
    return mask
  }

  private dropoutFeed(batch: TokenBatch, seed: number): Record<string, Tensor> {
    const shape = this.step.builder.dropoutPoolShape(batch.rows * batch.length)
    if (!shape || this.options.method.kind !== 'lora') return {}
    const { dropout } = this.options.method
    const random = createRandom(seed)
    const kept = 1 / (1 - dropout)
    const data = Float32Array.from({ length: elementCount(shape) }, () =>
      random.next() < dropout ? 0 : kept,
    )
    return { dropout_pool: floatTensor(data, shape) }
  }
}

function buildStepGraph(
  model: OpenModel,
  { method, maxLength }: CompiledStepOptions,
  purpose: 'training' | 'evaluation',
): StepGraph {
  const training = purpose === 'training'
  const builder = new ModelBuilder(model.weights, {
    weights: method.kind === 'full' ? 'trained' : 'frozen',
    lora: (module) =>
      method.kind === 'lora' && isTarget(module, method.targets)
        ? { rank: method.rank, scale: method.scale, dropout: training ? method.dropout : 0 }
        : undefined,
  })
  const { g } = builder
  const form = { attention: sequenceAttention(builder), positions: maxLength }
  const hidden = model.family.build(builder, model.config, form)
  const rows = g.input('rows', 'int64', ['trained'])
  const labels = g.input('labels', 'int64', ['trained'])
  g.bindDim('trained', rows, 0)
  const logits = languageModelHead(builder, model.config, hidden, rows)
  const tokenWeight = g.input('token_weight', 'float32', [])
  const loss = weightedCrossEntropy(builder, logits, labels, tokenWeight)
  const trained = builder.trainables.map(({ value }) => value)
  const gradients = training ? g.scope('backward', () => backward(g, loss, trained)) : []
  const outputs = [...gradients, loss]
  const fused = fuseAddIntoGemm(removeDeadNodes(g.nodes, outputs), outputs)
  return {
    graph: g.finish(outputs, orderForMemory(fused, gradients, loss)),
    builder,
    lossName: loss.name,
    gradientNames: gradients.map((gradient) => gradient.name),
  }
}

/** PEFT's rule: a target names the end of a module's path, on a dot border. */
export function isTarget({ path }: LinearModule, targets: LoraMethod['targets']): boolean {
  return targets === 'all' || targets.some((target) => path === target || path.endsWith(`.${target}`))
}

function checkTargets(linears: readonly LinearModule[], method: TrainingMethod): void {
  if (method.kind !== 'lora' || method.targets === 'all') return
  const missing = method.targets.filter((target) => !linears.some((module) => isTarget(module, [target])))
  if (missing.length === 0) return
  const known = [...new Set(linears.map(({ path }) => path.split('.').at(-1)))]
  throw new EngineError(
    'invalid',
    'lora_target_unknown',
    `lora_target ${missing.join(', ')} matches no linear module of this model; it has ${known.join(', ')}`,
    { param: 'lora_target' },
  )
}
