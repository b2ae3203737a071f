import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { floatTensor, type Tensor } from '../tensor.ts'
import { checkCancelled } from '../weights/atomic-folder.ts'
import { gptq } from './gptq.ts'
import type { OrderedBlocks } from './gptq-reader.ts'
import type { HiddenStates } from './hidden-file.ts'
import { HIDDEN, type LinearGroup } from './layer-graph.ts'
import type { LayerStage } from './layer-stage.ts'
import { orderedValues } from './ordered-values.ts'
import type { Walk } from './quantize-model.ts'
import { type Allowance, SequenceStore } from './sequence-store.ts'

/** Most tokens in one run of a stage, and most values of what a linear module reads. */
const RUN_TOKENS = 2048
const RUN_VALUES = 4 << 20
/** Bytes of what stages pass on that stay in memory. */
const IN_MEMORY = 400e6

/**
 * One layer on its way through GPTQ. The calibration text passes it once, in stages: each stage ends where a group of linear
 * modules reads, takes the Hessian there, and the group is quantized before the next stage computes with it. So every module's
 * Hessian comes from a prefix that is quantized in the layers before it and in its own.
 */
export class CalibratedLayer {
  readonly #walk: Walk
  readonly #states: HiddenStates
  readonly #layer: number
  readonly #length: number
  readonly #folder: string
  /** What stages pass on, by name. */
  readonly #passed = new Map<string, SequenceStore>()
  readonly #allowance: Allowance = { left: IN_MEMORY }
  #weights = new Map<string, Tensor>()

  constructor(walk: Walk, states: HiddenStates, layer: number, length: number) {
    this.#walk = walk
    this.#states = states
    this.#layer = layer
    this.#length = length
    this.#folder = join(walk.layers.folder, 'passed')
    mkdirSync(this.#folder, { recursive: true })
  }

  /** The layer's blocks by module path. @throws EngineError `cancelled`, and what gptq throws. */
  async quantize(): Promise<Map<string, OrderedBlocks>> {
    const { graphs, model, options, product } = this.#walk
    const { groups } = await graphs.describe(this.#layer)
    const stages = await graphs.stages(this.#layer)
    this.#weights = await graphs.load(this.#layer, model.weights)
    const matrices = new Map<string, OrderedBlocks>()
    for (const [index, group] of groups.entries()) {
      const { inFeatures } = group
      const hessian = new Float32Array(inFeatures * inFeatures)
      for await (const _ of this.#run(stages[index]!, hessian)) checkCancelled(options.signal)
      mirror(hessian, inFeatures)
      const done = await gptq(this.#matricesOf(group), inFeatures, hessian, options, product)
      for (const [path, blocks] of done) {
        matrices.set(path, blocks)
        this.#replace(path, blocks)
      }
    }
    return matrices
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
    for (const file of this.#passed.values()) file.close()
    rmSync(this.#folder, { recursive: true, force: true })
  }

  /** Runs a stage over all sequences, reading what earlier stages passed on and keeping what this one passes on. */
  async *#run(stage: LayerStage, hessian: Float32Array | undefined): AsyncGenerator<Record<string, Tensor>> {
    const { sequences } = this.#states
    const { graphs } = this.#walk
    const batch = Math.max(1, Math.floor((await this.#runTokens()) / this.#length))
    const { hiddenSize } = this.#walk.model.config
    for (let from = 0; from < sequences; from += batch) {
      const count = Math.min(batch, sequences - from)
      const feeds = await graphs.feeds(this.#layer, this.#weights, count, count * this.#length * hiddenSize)
      for (const { name } of stage.reads) feeds[name] = this.#read(name, from, count, stage)
      const results = await stage.run(feeds, hessian)
      for (const { name } of stage.passes) this.#storeOf(name).write(from, count, results[name]!)
      yield results
      await setImmediate() // lets a cancellation in
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

  #replace(path: string, matrix: OrderedBlocks): void {
    const { rows, columns } = matrix.blocks
    this.#weights.set(`${path}.weight`, floatTensor(orderedValues(matrix), [rows, columns]))
  }
}

/** Copies the upper triangle of a square matrix into the lower one. */
function mirror(matrix: Float32Array, size: number): void {
  for (let row = 0; row < size; row++) {
    for (let column = row + 1; column < size; column++)
      matrix[column * size + row] = matrix[row * size + column]!
  }
}
