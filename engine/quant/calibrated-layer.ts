import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { dequantize } from '../gguf/dequantize.ts'
import { floatTensor, type Tensor } from '../tensor.ts'
import { checkCancelled } from '../weights/atomic-folder.ts'
import { float16Bits, float16Value } from '../weights/dtypes.ts'
import { awq } from './awq.ts'
import type { PackedBlocks } from './gguf-codes-k.ts'
import { gptq, gptqForGguf, type Matrix } from './gptq.ts'
import type { HiddenStates } from './hidden-file.ts'
import { HIDDEN, type LinearGroup } from './layer-graph.ts'
import type { LayerStage } from './layer-stage.ts'
import type { PackedMatrix } from './packed-products.ts'
import type { QuantizeOptions, QuantizeWalk } from './quantize-walk.ts'
import type { QuantizedLayer } from './quantized-layers.ts'
import { type Allowance, SequenceStore } from './sequence-store.ts'

/** Most tokens in one run of a stage, and most values of what a linear module reads. */
const RUN_TOKENS = 2048
const RUN_VALUES = 4 << 20
/** Bytes of what stages pass on that stay in memory. */
const IN_MEMORY = 400e6

/**
 * One layer on its way through a method with data. The calibration text passes it once, in stages: each stage ends where a
 * group of linear modules reads, takes the Hessian there, and the group is quantized before the next stage computes with it.
 * So every module's Hessian comes from a prefix that is quantized in the layers before it and in its own.
 */
export class CalibratedLayer {
  readonly #walk: QuantizeWalk
  readonly #states: HiddenStates
  readonly #layer: number
  readonly #length: number
  readonly #folder: string
  /** What stages pass on, by name. */
  readonly #passed = new Map<string, SequenceStore>()
  readonly #allowance: Allowance = { left: IN_MEMORY }
  #weights = new Map<string, Tensor>()
  readonly #matrices = new Map<string, PackedMatrix>()
  readonly #packed = new Map<string, PackedBlocks>()
  readonly #changed = new Map<string, { shape: readonly number[]; values: Float32Array }>()

  constructor(walk: QuantizeWalk, states: HiddenStates, layer: number, length: number) {
    this.#walk = walk
    this.#states = states
    this.#layer = layer
    this.#length = length
    this.#folder = passedFolder(walk)
    mkdirSync(this.#folder, { recursive: true })
  }

  /** The quantized layer. @throws EngineError `cancelled`, and what the method throws. */
  async quantize(): Promise<QuantizedLayer> {
    const { graphs, model } = this.#walk
    const { groups } = await graphs.describe(this.#layer)
    const stages = await graphs.stages(this.#layer)
    this.#weights = await graphs.load(this.#layer, model.weights)
    for (const [index, group] of groups.entries()) {
      await this.#quantizeGroup(group, await this.#hessianAt(stages[index]!, group.inFeatures))
    }
    return { matrices: this.#matrices, changed: this.#changed, packed: this.#packed }
  }

  async #hessianAt(stage: LayerStage, inFeatures: number): Promise<Float32Array> {
    const hessian = new Float32Array(inFeatures * inFeatures)
    for await (const _ of this.#run(stage, hessian)) checkCancelled(this.#walk.options.signal)
    mirror(hessian, inFeatures)
    return hessian
  }

  async #quantizeGroup(group: LinearGroup, hessian: Float32Array): Promise<void> {
    const { options, product } = this.#walk
    const { inFeatures, before } = group
    const matrices = this.#matricesOf(group)
    if (options.blockTypes) return this.#packForGguf(matrices, inFeatures, hessian, options.blockTypes)
    if (options.method === 'gptq') {
      for (const [path, matrix] of await gptq(matrices, inFeatures, hessian, options, product)) {
        this.#matrices.set(path, { ...matrix, inputScales: undefined })
      }
      return
    }
    const scaled = await awq(matrices, inFeatures, hessian, options, product, before !== undefined)
    for (const [path, blocks] of scaled.blocks) {
      this.#matrices.set(path, { blocks, order: undefined, inputScales: scaled.scales })
    }
    if (scaled.scales) this.#divideBefore(before!, scaled.scales)
  }

  /** Blocks that only GGUF has are no integers that the runtime multiplies: the text goes on with what they stand for. */
  async #packForGguf(
    matrices: readonly Matrix[],
    columns: number,
    hessian: Float32Array,
    types: NonNullable<QuantizeOptions['blockTypes']>,
  ): Promise<void> {
    const { options, product } = this.#walk
    const typeOf = (path: string) => types.get(path)
    const packed = await gptqForGguf(matrices, columns, hessian, options.damping, typeOf, product)
    for (const { path, rows } of matrices) {
      const found = packed.get(path)
      if (!found) continue
      this.#packed.set(path, found)
      const values = dequantize(found.type, found.bytes, rows * columns)
      this.#weights.set(`${path}.weight`, floatTensor(values, [rows, columns]))
    }
  }

  /**
   * Takes the scales off a group's input. The text goes on as it is, and its products divide by the scales themselves, so this
   * shows in what is written alone.
   */
  #divideBefore(before: NonNullable<LinearGroup['before']>, scales: Float32Array): void {
    if ('norm' in before) {
      const { normOffset } = this.#walk.model.config
      const { data, dims } = this.#weights.get(before.norm)!
      const values = (data as Float32Array).map((w, i) => (w + normOffset) / scales[i]! - normOffset)
      this.#changed.set(before.norm, { shape: dims, values })
      return
    }
    const { blocks } = this.#matrices.get(before.rows)!
    const groups = blocks.scales.length / blocks.rows
    for (const [at, scale] of blocks.scales.entries()) {
      blocks.scales[at] = float16Value(float16Bits(scale / scales[Math.floor(at / groups)]!))
    }
  }

  /** The states behind the layer, batch after batch, once it is quantized. */
  async *outputs(): AsyncGenerator<Float32Array> {
    const stage = (await this.#walk.graphs.stages(this.#layer)).at(-1)!
    for await (const results of this.#run(stage, undefined)) {
      checkCancelled(this.#walk.options.signal)
      yield results[stage.end.name]!.data as Float32Array
    }
  }

  close(): void {
    for (const store of this.#passed.values()) store.close()
  }

  /** Runs a stage over all sequences, reading what earlier stages passed on and keeping what this one passes on. */
  async *#run(stage: LayerStage, hessian: Float32Array | undefined): AsyncGenerator<Record<string, Tensor>> {
    const { sequences } = this.#states
    const { graphs } = this.#walk
    const batch = Math.max(1, Math.floor((await this.#runTokens()) / this.#length))
    const { hiddenSize } = this.#walk.model.config
    const opened = await graphs.openStage(this.#layer, stage, this.#matrices)
    try {
      for (let from = 0; from < sequences; from += batch) {
        const count = Math.min(batch, sequences - from)
        const feeds = await graphs.feeds(this.#layer, this.#weights, count, count * this.#length * hiddenSize)
        for (const { name } of stage.reads) feeds[name] = this.#read(name, from, count, stage)
        const results = await opened.run(feeds, hessian)
        for (const { name } of stage.passes) this.#storeOf(name).write(from, count, results[name]!)
        yield results
        await setImmediate() // lets a cancellation in
      }
    } finally {
      await opened.release()
    }
  }

  async #runTokens(): Promise<number> {
    const { groups } = await this.#walk.graphs.describe(this.#layer)
    const widest = Math.max(...groups.map(({ inFeatures }) => inFeatures))
    return Math.min(RUN_TOKENS, Math.floor(RUN_VALUES / widest))
  }

  #read(name: string, from: number, count: number, stage: LayerStage): Tensor {
    if (name !== HIDDEN) return this.#storeOf(name).read(from, count, stage.readsLast.has(name))
    const { hiddenSize } = this.#walk.model.config
    return floatTensor(this.#states.read(this.#layer, from, count), [count * this.#length, hiddenSize])
  }

  #storeOf(name: string): SequenceStore {
    const known = this.#passed.get(name)
    if (known) return known
    const store = new SequenceStore(join(this.#folder, `${this.#passed.size}.f32`), this.#allowance)
    this.#passed.set(name, store)
    return store
  }

  #matricesOf({ modules }: LinearGroup) {
    return modules.map(({ path, outFeatures: rows }) => {
      return { path, rows, values: this.#weights.get(`${path}.weight`)!.data as Float32Array }
    })
  }
}

/** Where the stages of one layer after the other keep what does not stay in memory. */
export function passedFolder({ layers }: QuantizeWalk): string {
  return join(layers.folder, 'passed')
}

/** Copies the upper triangle of a square matrix into the lower one. */
function mirror(matrix: Float32Array, size: number): void {
  for (let row = 0; row < size; row++) {
    for (let column = row + 1; column < size; column++)
      matrix[column * size + row] = matrix[row * size + column]!
  }
}
