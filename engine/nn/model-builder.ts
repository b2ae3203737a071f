import { GraphBuilder } from '../graph/builder.ts'
import type { Dim, Value } from '../graph/values.ts'
import { type PackedLayout, packedLayout } from '../packed/layout.ts'
import type { DType } from '../tensor.ts'
import type { WeightFolder } from '../weights/safetensors.ts'
import type { LinearModule } from './linear-module.ts'
import { adaptedLinear, type LoraTarget } from './lora.ts'
import { hasPackedProduct, packedProduct } from './packed-product.ts'
import { packedWeight } from './packed-weight.ts'
import { StackedLora } from './stacked-lora.ts'

export type { LoraTarget } from './lora.ts'

/** Flattened rows of a batch: every matrix product runs over these. */
export const TOKENS: Dim = 'batch*seq'

export interface ModelBuilderOptions {
  /** Whether a tensor of the checkpoint, by name, is a trained input; the others are constants mapped from their files. */
  readonly trains?: (tensor: string) => boolean
  /** Add `embedding_noise` [batch*seq, width] to the embedded tokens (NEFTune). */
  readonly embeddingNoise?: boolean
  /** The adapter of a linear module, or undefined where it has none. */
  readonly lora?: (module: LinearModule) => LoraTarget | undefined
  /** Adapters that are fed at run time, each row of a batch its own; instead of `lora`. */
  readonly stackedLora?: 'plain' | 'scaled' | undefined
  /** Multiply with packed integers as they are, rounding activations to 8 bits; else they are widened first. */
  readonly packedProducts?: boolean
  /** Compute projections of one input in one product, where they have no DoRA adapters. */
  readonly joinProjections?: boolean
  /** Parts into which the loss is cut, so that fewer logits are in memory at a time; 1 when left out. */
  readonly lossChunks?: number
  /** x·Wᵀ of a linear module whose weight is stored in a form of its own; undefined where it is an ordinary tensor. */
  readonly product?: (m: ModelBuilder, x: Value, module: LinearModule) => Value | undefined
}

/** A trainable input of the graph, with the name that its file will use. */
export interface TrainableInput {
  readonly name: string
  readonly value: Value
  readonly shape: readonly number[]
}

/**
 * What a model family builds with: the graph under construction, the checkpoint's tensors and the adapters on its
 * linear modules. Families and blocks use nothing else.
 */
export class ModelBuilder {
  readonly g = new GraphBuilder()
  readonly inputIds: Value
  readonly positionIds: Value
  readonly trainables: TrainableInput[] = []
  /** Every linear module in the order in which the model uses it. */
  readonly linears: LinearModule[] = []
  /** The adapters of a run, where the options ask for them. */
  readonly stacked: StackedLora | undefined
  readonly lossChunks: number
  /** What each linear module reads, [rows, inFeatures], by path. */
  readonly linearInputs = new Map<string, Value>()
  private readonly folder: WeightFolder
  private readonly packed: PackedLayout | undefined
  private readonly options: ModelBuilderOptions
  private readonly loaded = new Map<string, Value>()
  private dropoutPool: Value | undefined
  private dropoutWidth = 0

  constructor(folder: WeightFolder, options: ModelBuilderOptions) {
    this.lossChunks = options.lossChunks ?? 1
    this.folder = folder
    this.packed = packedLayout(folder)
    this.options = options
    this.inputIds = this.g.input('input_ids', 'int64', ['batch', 'seq'])
    this.positionIds = this.g.input('position_ids', 'int64', ['batch', 'seq'])
    this.g.bindDim('batch', this.inputIds, 0)
    this.g.bindDim('seq', this.inputIds, 1)
    this.stacked = options.stackedLora
      ? new StackedLora(this.g, TOKENS, { scaled: options.stackedLora === 'scaled' })
      : undefined
  }

  /** Whether projections of one input are to be computed in one product, by `joinedLinears`. */
  get joinsProjections(): boolean {
    return this.options.joinProjections === true && this.options.stackedLora !== 'scaled'
  }

  /**
   * A tensor of the checkpoint in its stored dtype, checked against the shape that the family expects. Throws
   * not_found for a missing tensor and invalid for a wrong shape.
   */
  parameter(name: string, shape: readonly number[]): Value {
    const known = this.loaded.get(name)
    if (known) return known
    const entry = this.folder.expectShape(name, shape)
    const dtype = this.folder.weightDType(name)
    const value = this.options.trains?.(name)
      ? this.trainable(name, shape)
      : this.g.weight(name, dtype, shape, {
          file: entry.file,
          offset: entry.offset,
          byteLength: entry.byteLength,
        })
    this.loaded.set(name, value)
    return value
  }

  has(name: string): boolean {
    return this.folder.has(name)
  }

  /** Bytes of a tensor in the file. */
  storedBytes(name: string): number {
    return this.folder.entry(name).byteLength
  }

  /** A tensor's bytes as they stand in the file. */
  rawBytes(name: string): Uint8Array {
    return this.folder.readRaw(name)
  }

  /** A tensor of a packed base as a constant of the given type, in the given shape where that isn't the file's. */
  stored(name: string, dtype: DType, shape: readonly number[] = this.folder.entry(name).shape): Value {
    const known = this.loaded.get(name)
    if (known) return known
    const { file, offset, byteLength } = this.folder.entry(name)
    const value = this.g.weight(name, dtype, shape, { file, offset, byteLength })
    this.loaded.set(name, value)
    return value
  }

  /** A tensor of the checkpoint as float32, the type that all arithmetic uses. */
  floatParameter(name: string, shape: readonly number[]): Value {
    if (this.packed && !this.has(name)) {
      return packedWeight(this, name, shape as [number, number], this.packed)
    }
    const stored = this.parameter(name, shape)
    const isVector = shape.length === 1 && stored.dtype !== 'float32'
    return isVector ? this.widenedVector(name, shape) : this.g.Cast(stored, 'float32')
  }

  /** Norms and biases are small: widened once here, they cost no cast in every run (2 % of a LoRA step). */
  private widenedVector(name: string, shape: readonly number[]): Value {
    const key = `${name} as float32`
    const known = this.loaded.get(key) ?? this.g.constant('float32', shape, this.folder.readFloat32(name))
    this.loaded.set(key, known)
    return known
  }

  /**
   * Tensors of the checkpoint below a path that nothing has read. Buffers of old checkpoints don't count, nor do the
   * parts of a linear module that isn't stored as one weight.
   */
  unreadBelow(path: string): string[] {
    const linears = new Set(this.linears.map((module) => module.path))
    return [...this.folder.entries.keys()].filter((name) => {
      if (!name.startsWith(`${path}.`) || this.loaded.has(name) || name.endsWith('.inv_freq')) return false
      const module = name.slice(0, name.lastIndexOf('.'))
      return !linears.has(module) || this.folder.has(`${module}.weight`)
    })
  }

  /** Rows of an embedding table: int64 [batch, seq] → float32 [batch*seq, width]. */
  embedding(path: string, vocabulary: number, width: number): Value {
    const table = this.parameter(`${path}.weight`, [vocabulary, width])
    const rows = this.g.Gather(table, this.g.Reshape(this.inputIds, [TOKENS]))
    const embedded = this.g.Cast(rows, 'float32')
    if (!this.options.embeddingNoise) return embedded
    return this.g.Add(embedded, this.g.input('embedding_noise', 'float32', [TOKENS, width]))
  }

  /**
   * y = x·Wᵀ (+ bias) (+ addend), with the module's adapter where it has one (lora.ts).
   * x is [rows, inFeatures]; everything added rides in the products' C operand.
   */
  linear(x: Value, module: LinearModule, options: { bias?: boolean; addend?: Value } = {}): Value {
    const { g } = this
    const { path, inFeatures, outFeatures } = module
    this.linears.push(module)
    this.linearInputs.set(path, x)
    return g.scope(path, () => {
      const bias = options.bias ? this.floatParameter(`${path}.bias`, [outFeatures]) : undefined
      const offset = options.addend && bias ? g.Add(options.addend, bias) : (options.addend ?? bias)
      const target = this.options.lora?.(module)
      if (target) {
        const weight = this.floatParameter(`${path}.weight`, [outFeatures, inFeatures])
        return adaptedLinear(this, x, { weight, offset }, module, target)
      }
      const product = this.product(x, [module])
      if (this.stacked) return this.stacked.linear(x, module, product, offset)
      return product(offset)
    })
  }

  /** Whether the output head is packed and multiplied as it is, by packedHead. */
  hasPackedHead(module: LinearModule): boolean {
    const { packed, options } = this
    return packed !== undefined && options.packedProducts === true && hasPackedProduct(this, [module], packed)
  }

  /** x·Wᵀ of the output head. */
  packedHead(x: Value, module: LinearModule): Value {
    return packedProduct(this, x, [module], this.packed!)
  }

  /** x·Wᵀ (+ c) over the weights of modules, one below the other. */
  private product(x: Value, modules: readonly LinearModule[]): (c?: Value) => Value {
    const { g, packed } = this
    const stored = modules.length === 1 ? this.options.product?.(this, x, modules[0]!) : undefined
    if (stored) return (c) => (c ? g.Add(stored, c) : stored)
    if (packed && this.options.packedProducts && hasPackedProduct(this, modules, packed)) {
      const product = packedProduct(this, x, modules, packed)
      return (c) => (c ? g.Add(product, c) : product)
    }
    const weights = modules.map(({ path, inFeatures, outFeatures }) =>
      this.floatParameter(`${path}.weight`, [outFeatures, inFeatures]),
    )
    const weight = weights.length === 1 ? weights[0]! : g.Concat(weights, 0)
    return (c) => g.Gemm(x, weight, { transB: 1 }, c)
  }

  /**
   * Several modules over one input, each x·Wᵀ (+ bias), side by side, computed as one product over the weights one below
   * the other: fewer and larger operations.
   */
  joinedLinears(x: Value, modules: readonly LinearModule[], options: { bias?: boolean } = {}): Value {
    const { g } = this
    this.linears.push(...modules)
    return g.scope(modules.map(({ path }) => path).join('+'), () => {
      const biases = options.bias
        ? modules.map(({ path, outFeatures }) => this.floatParameter(`${path}.bias`, [outFeatures]))
        : []
      const product = this.product(x, modules)(biases.length > 0 ? g.Concat(biases, 0) : undefined)
      const { stacked } = this
      if (!stacked) return product
      const branches = modules.map((module) => stacked.branch(x, module, undefined))
      return g.Add(product, g.Concat(branches, 1))
    })
  }

  /** An input for a part of an adapter; trained where its shape has no symbols. */
  adapterInput(name: string, shape: readonly Dim[]): Value {
    const value = this.g.input(name, 'float32', shape)
    if (shape.every((dim) => typeof dim === 'number')) this.trainables.push({ name, value, shape })
    return value
  }

  /**
   * Each module reads its mask from one pool of random values at its own row offset, so that one small feed, made from
   * the step's seed, serves all of them: dropout_pool [batch*seq + modules, widest input], 0 or 1 / (1 - p).
   */
  dropoutMask(module: LinearModule, rows: Dim): Value {
    this.dropoutPool ??= this.g.input('dropout_pool', 'float32', ['pool_rows', 'pool_width'])
    this.dropoutWidth = Math.max(this.dropoutWidth, module.inFeatures)
    const row = this.linears.length - 1
    return this.g.Slice(this.g.Slice(this.dropoutPool, 0, row, rows), 1, 0, module.inFeatures)
  }

  /** The extent of `dropout_pool` for a number of tokens, or null when no module drops anything. */
  dropoutPoolShape(tokens: number): readonly [number, number] | null {
    return this.dropoutPool ? [tokens + this.linears.length, this.dropoutWidth] : null
  }

  /** A trained tensor that the checkpoint does not have. */
  newParameter(name: string, shape: readonly number[]): Value {
    return this.trainable(name, shape)
  }

  private trainable(name: string, shape: readonly number[]): Value {
    const value = this.g.input(name, 'float32', shape)
    this.trainables.push({ name, value, shape })
    return value
  }
}
