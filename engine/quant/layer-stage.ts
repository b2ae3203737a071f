import type { GraphBuilder } from '../graph/builder.ts'
import type { Graph } from '../graph/graph.ts'
import type { Stage } from '../graph/stages.ts'
import type { Value } from '../graph/values.ts'
import { Session } from '../onnx/session.ts'
import type { Tensor } from '../tensor.ts'
import { addGram, emitGram, type Gram } from './gram.ts'
import { type PackedMatrix, withPackedProducts } from './packed-products.ts'

/** One stage of a layer: up to the input of a linear group, with Xᵀ·X of it, or up to the layer's end. */
export class LayerStage {
  /** What it needs of the stages before it. */
  readonly reads: readonly Value[]
  /** Names of what no later stage reads again. */
  readonly readsLast: ReadonlySet<string>
  /** What later stages need of it. */
  readonly passes: readonly Value[]
  /** What it is for: the group's input, or the layer's output. */
  readonly end: Value
  /** Xᵀ·X of the group's input; undefined at the layer's end. */
  private readonly gram: Gram | undefined
  private readonly graph: Graph

  constructor(g: GraphBuilder, stage: Stage, end: Value, hasProduct: boolean) {
    this.end = end
    this.reads = stage.reads
    this.readsLast = stage.readsLast
    this.passes = stage.passes
    const before = g.nodes.length
    this.gram = hasProduct ? emitGram(g, end) : undefined
    const ends = this.gram ? [this.gram.largest, ...this.gram.strips.map(({ value }) => value)] : [end]
    const outputs = [...stage.passes, ...ends]
    const nodes = [...stage.nodes, ...g.nodes.slice(before)]
    const graph = g.finish(outputs, nodes)
    const read = new Set(nodes.flatMap((node) => node.inputs).map((value) => value?.name))
    const fed = [...graph.inputs, ...stage.reads].filter(({ name }) => read.has(name))
    this.graph = { ...graph, inputs: [...new Map(fed.map((value) => [value.name, value])).values()] }
  }

  /** Makes it ready to run. @param matrices what is quantized already, by the names of the weights. */
  async open(matrices: ReadonlyMap<string, PackedMatrix>, threads: number): Promise<OpenStage> {
    const graph = withPackedProducts(this.graph, matrices)
    const session = await Session.create(graph, { threads, prepack: true })
    const fed = graph.inputs.map(({ name }) => name)
    return new OpenStage(session, fed, this.gram)
  }
}

/** A stage that runs; the caller releases it. */
export class OpenStage {
  private readonly session: Session
  private readonly fed: readonly string[]
  private readonly gram: Gram | undefined

  constructor(session: Session, fed: readonly string[], gram: Gram | undefined) {
    this.session = session
    this.fed = fed
    this.gram = gram
  }

  /**
   * Runs a batch; of the feeds it takes what it reads. What is passed on comes back by name, the layer's output among it in its
   * last stage; Xᵀ·X [width, width] is added to the upper triangle of `product`, whose lower one stays as it is.
   */
  async run(
    feeds: Record<string, Tensor>,
    product: Float32Array | undefined,
  ): Promise<Record<string, Tensor>> {
    const used = this.fed.map((name) => [name, feeds[name]!] as const)
    const results = await this.session.run(Object.fromEntries(used))
    if (product && this.gram) addGram(product, this.gram, results)
    return results
  }

  release(): Promise<void> {
    return this.session.release()
  }
}
