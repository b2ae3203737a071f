import type { GraphBuilder } from '../graph/builder.ts'
import type { Graph } from '../graph/graph.ts'
import type { Stage } from '../graph/stages.ts'
import type { Value } from '../graph/values.ts'
import { Session } from '../onnx/session.ts'
import type { Tensor } from '../tensor.ts'

/** Into how many parts a wide input's columns go: Xᵀ·X is symmetric, so five eighths of it are computed with four. */
const PARTS = 4
/** Widths of parts are multiples of it, which matrix kernels like. */
const STEP = 16

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
  /** Rows [from, …) of Xᵀ·X from their diagonal on; empty at the layer's end. */
  private readonly strips: readonly { from: number; value: Value }[]
  private readonly graph: Graph
  private readonly threads: number
  private session: Promise<Session> | undefined

  constructor(g: GraphBuilder, stage: Stage, end: Value, hasProduct: boolean, threads: number) {
    this.threads = threads
    this.end = end
    this.reads = stage.reads
    this.readsLast = stage.readsLast
    this.passes = stage.passes
    const before = g.nodes.length
    this.strips = hasProduct ? upperStrips(g, end) : []
    const outputs = [...stage.passes, ...(hasProduct ? this.strips.map(({ value }) => value) : [end])]
    const nodes = [...stage.nodes, ...g.nodes.slice(before)]
    const graph = g.finish(outputs, nodes)
    const read = new Set(nodes.flatMap((node) => node.inputs).map((value) => value?.name))
    const fed = [...graph.inputs, ...stage.reads].filter(({ name }) => read.has(name))
    this.graph = { ...graph, inputs: [...new Map(fed.map((value) => [value.name, value])).values()] }
  }

  /**
   * Runs a batch. What is passed on comes back by name, the layer's output among it in its last stage; Xᵀ·X [width, width] is
   * added to the upper triangle of `product`, whose lower one stays as it is.
   */
  async run(
    feeds: Record<string, Tensor>,
    product: Float32Array | undefined,
  ): Promise<Record<string, Tensor>> {
    this.session ??= Session.create(this.graph, { threads: this.threads })
    const used = this.graph.inputs.map(({ name }) => [name, feeds[name]!] as const)
    const results = await (await this.session).run(Object.fromEntries(used))
    if (product) for (const strip of this.strips) this.add(product, strip, results)
    return results
  }

  private add(
    product: Float32Array,
    { from, value }: { from: number; value: Value },
    results: Record<string, Tensor>,
  ): void {
    const { data, dims } = results[value.name]!
    const width = this.end.shape[1] as number
    const [rows, columns] = dims as [number, number]
    for (let row = 0; row < rows; row++) {
      const to = (from + row) * width + from
      const at = row * columns
      for (let column = row; column < columns; column++) product[to + column]! += data[at + column] as number
    }
  }

  async release(): Promise<void> {
    await (await this.session)?.release()
  }
}

/** Xᵀ·X in strips of rows, each from its diagonal block to the right. */
function upperStrips(g: GraphBuilder, x: Value): { from: number; value: Value }[] {
  const width = x.shape[1] as number
  const size = Math.ceil(width / PARTS / STEP) * STEP
  const strips: { from: number; value: Value }[] = []
  for (let from = 0; from < width; from += size) {
    const right = from === 0 ? x : g.Slice(x, 1, from, width - from)
    const left = from + size >= width ? right : g.Slice(x, 1, from, size)
    strips.push({ from, value: g.Gemm(left, right, { transA: 1 }) })
  }
  return strips
}
