import type { Op } from '../graph/ops.ts'
import { cutIntoStages } from '../graph/stages.ts'
import type { Value } from '../graph/values.ts'
import type { OpenModel } from '../models/index.ts'
import { partedAttention } from '../nn/attention.ts'
import { decoderLayer } from '../nn/decoder-layer.ts'
import type { LinearModule } from '../nn/linear-module.ts'
import { causalMask, consecutivePositions } from '../nn/masks.ts'
import { ModelBuilder, TOKENS } from '../nn/model-builder.ts'
import { rotaryTables } from '../nn/rope.ts'
import { Session } from '../onnx/session.ts'
import { floatTensor, intTensor, type Tensor } from '../tensor.ts'
import { LayerStage, type OpenStage } from './layer-stage.ts'
import type { PackedMatrix } from './packed-products.ts'
import type { WeightSource } from './weight-source.ts'

/** Name of the input that a layer's hidden states are fed to. */
export const HIDDEN = 'hidden'
/** Costs less to compute again than to keep. */
const CHEAP: ReadonlySet<Op> = new Set(['SimplifiedLayerNormalization'])

/** Tensors of one layer by name, as float32. */
export type LayerWeights = ReadonlyMap<string, Tensor>

/** The linear modules of a layer that read the same input. */
export interface LinearGroup {
  readonly modules: readonly LinearModule[]
  readonly inFeatures: number
  readonly input: Value
  /** What can take a scale of each input off their input: the norm that makes it, or the rows of a linear module. */
  readonly before: { readonly norm: string } | { readonly rows: string } | undefined
}

interface Compiled {
  readonly session: Session
  readonly output: string
  readonly stages: readonly LayerStage[]
  readonly parameters: readonly { name: string; shape: readonly number[] }[]
  readonly groups: readonly LinearGroup[]
}

/**
 * Runs a model one layer at a time, with the layer's weights fed in: one compiled graph serves all layers of a kind, and
 * quantized weights take the same way as the checkpoint's own.
 */
export class LayerGraphs {
  private readonly model: OpenModel
  private readonly positions: number
  private readonly threads: number
  private readonly compiled = new Map<string, Compiled>()

  /** @param positions length of all sequences. */
  constructor(model: OpenModel, positions: number, threads = 0) {
    this.model = model
    this.positions = positions
    this.threads = threads
  }

  /** A layer's tensors and its linear modules, grouped by input, with their paths in that layer. */
  async describe(layer: number): Promise<{ names: string[]; groups: LinearGroup[] }> {
    const { parameters, groups } = await this.graphOf(layer)
    const here = this.renamer(layer)
    return {
      names: parameters.map(({ name }) => here(name)),
      groups: groups.map((group) => ({
        ...group,
        modules: group.modules.map((module) => ({ ...module, path: here(module.path) })),
        before: moved(group.before, here),
      })),
    }
  }

  /** Reads a layer's tensors. */
  async load(layer: number, source: WeightSource): Promise<Map<string, Tensor>> {
    const { parameters } = await this.graphOf(layer)
    const here = this.renamer(layer)
    return new Map(
      parameters.map(({ name, shape }) => [here(name), floatTensor(source.readFloat32(here(name)), shape)]),
    )
  }

  /** Hidden states after a layer: [rows, hidden] of `batch` sequences → the same. */
  async forward(
    layer: number,
    weights: LayerWeights,
    hidden: Float32Array,
    batch: number,
  ): Promise<Float32Array> {
    const { session, output } = await this.graphOf(layer)
    const { hiddenSize } = this.model.config
    const fed = floatTensor(hidden, [hidden.length / hiddenSize, hiddenSize])
    const results = await session.run({
      ...(await this.feeds(layer, weights, batch, hidden.length)),
      [HIDDEN]: fed,
    })
    return results[output]!.data as Float32Array
  }

  /** A layer cut behind the input of each of its linear groups, and behind its end. */
  async stages(layer: number): Promise<readonly LayerStage[]> {
    return (await this.graphOf(layer)).stages
  }

  /** Makes a stage of a layer ready to run with what is quantized of the layer already, by module path. */
  async openStage(
    layer: number,
    stage: LayerStage,
    quantized: ReadonlyMap<string, PackedMatrix>,
  ): Promise<OpenStage> {
    const { groups } = await this.graphOf(layer)
    const here = this.renamer(layer)
    const matrices = new Map<string, PackedMatrix>()
    for (const { path } of groups.flatMap(({ modules }) => modules)) {
      const matrix = quantized.get(here(path))
      if (matrix) matrices.set(`${path}.weight`, matrix)
    }
    return stage.open(matrices, this.threads)
  }

  /** What every session of a layer may ask for beside its hidden states, which hold `values` numbers. */
  async feeds(
    layer: number,
    weights: LayerWeights,
    batch: number,
    values: number,
  ): Promise<Record<string, Tensor>> {
    const { parameters } = await this.graphOf(layer)
    const tokens = values / this.model.config.hiddenSize
    const length = tokens / batch
    const here = this.renamer(layer)
    return {
      ...Object.fromEntries(parameters.map(({ name }) => [name, weights.get(here(name))!])),
      input_ids: intTensor(new BigInt64Array(tokens), [batch, length]),
      position_ids: consecutivePositions(batch, length),
      attention_mask: causalMask(length),
    }
  }

  async release(): Promise<void> {
    for (const { session } of this.compiled.values()) await session.release()
    this.compiled.clear()
  }

  /** The graph's names are those of the first layer of its kind. */
  private renamer(layer: number): (name: string) => string {
    const prefix = `${this.model.config.names.layers}.`
    const first = this.firstOfKind(layer)
    return (name) =>
      name.startsWith(`${prefix}${first}.`)
        ? `${prefix}${layer}.${name.slice(prefix.length + String(first).length + 1)}`
        : name
  }

  private kindOf(layer: number): string {
    const { layerAttention, experts } = this.model.config
    return JSON.stringify([layerAttention[layer], experts?.layers.has(layer) ?? false])
  }

  private firstOfKind(layer: number): number {
    const kind = this.kindOf(layer)
    return this.model.config.layerAttention.findIndex((_, index) => this.kindOf(index) === kind)
  }

  private async graphOf(layer: number): Promise<Compiled> {
    const first = this.firstOfKind(layer)
    const kind = this.kindOf(layer)
    const known = this.compiled.get(kind)
    if (known) return known
    const compiled = await compileLayer(this.model, first, this.positions, this.threads)
    this.compiled.set(kind, compiled)
    return compiled
  }
}

async function compileLayer(
  model: OpenModel,
  layer: number,
  positions: number,
  threads: number,
): Promise<Compiled> {
  const { config } = model
  const builder = new ModelBuilder(model.weights, { trains: () => true })
  const { g } = builder
  const hidden = g.input(HIDDEN, 'float32', [TOKENS, config.hiddenSize])
  const { rope, window } = config.layerAttention[layer]!
  const place = {
    layer,
    tables: rotaryTables(builder, rope, positions),
    window: window !== null && window < positions ? window : null,
    form: partedAttention(builder, positions),
  }
  const output = decoderLayer(builder, config, place, hidden)
  const groups = linearGroups(builder)
  const ends = [...groups.map(({ input }) => input), output]
  const parts = cutIntoStages([...g.nodes], hidden, ends, CHEAP)
  return {
    session: await Session.create(g.finish([output]), { threads }),
    output: output.name,
    stages: parts.map((part, index) => new LayerStage(g, part, ends[index]!, index < groups.length)),
    parameters: builder.trainables,
    groups,
  }
}

function moved(before: LinearGroup['before'], here: (name: string) => string): LinearGroup['before'] {
  if (!before) return undefined
  return 'norm' in before ? { norm: here(before.norm) } : { rows: here(before.rows) }
}

function linearGroups(builder: ModelBuilder): LinearGroup[] {
  const groups = new Map<string, { modules: LinearModule[]; inFeatures: number; input: Value }>()
  for (const module of builder.linears) {
    const input = builder.linearInputs.get(module.path)!
    const group = groups.get(input.name)
    if (group) group.modules.push(module)
    else groups.set(input.name, { modules: [module], inFeatures: module.inFeatures, input })
  }
  return [...groups.values()].map((group) => ({ ...group, before: beforeOf(builder, group) }))
}

/**
 * What stands before a group: an RMS norm with a weight of its own, or y = a ⊙ x·Wᵀ, whose rows of W scale y. Undefined when
 * anything but the group reads their input, or something else makes it.
 */
function beforeOf(
  builder: ModelBuilder,
  { modules, input }: { modules: readonly LinearModule[]; input: Value },
): LinearGroup['before'] {
  const { nodes } = builder.g
  const makerOf = (value: Value) =>
    nodes.find(({ outputs }) => outputs.some(({ name }) => name === value.name))
  const readers = nodes.filter(({ inputs }) => inputs.some((read) => read?.name === input.name))
  const maker = makerOf(input)
  if (!maker || readers.length !== modules.length) return undefined
  if (maker.op === 'SimplifiedLayerNormalization') {
    const scale = maker.inputs[1]!
    const names = [scale, makerOf(scale)?.inputs[0]].map((value) => value?.name)
    const norm = builder.trainables.find(({ value }) => names.includes(value.name))
    return norm && { norm: norm.name }
  }
  const product = maker.op === 'Mul' ? makerOf(maker.inputs[1]!) : undefined
  if (product?.op !== 'Gemm' || product.inputs.length !== 2) return undefined
  const rows = builder.linears.find(({ path }) => `${path}.weight` === product.inputs[1]!.name)
  return rows && { rows: rows.path }
}

/** Embeds token ids: [tokens] → [tokens, hidden], scaled as the family does. */
export function embed(model: OpenModel, source: WeightSource, tokens: Int32Array): Float32Array {
  const { names, hiddenSize, embeddingScale } = model.config
  const hidden = new Float32Array(tokens.length * hiddenSize)
  for (const [index, token] of tokens.entries()) {
    const row = source.readRows(`${names.embedding}.weight`, token, 1)
    for (let i = 0; i < hiddenSize; i++) hidden[index * hiddenSize + i] = row[i]! * embeddingScale
  }
  return hidden
}
