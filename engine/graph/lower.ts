import { GraphBuilder } from './builder.ts'
import { type Accelerator, hasKernel, multipliesBfloat16 } from './device-table.ts'
import type { Graph, Node } from './graph.ts'
import { takeHostPart } from './host-part.ts'
import { type LoweringRule, loweringRules } from './lowering-rules.ts'
import { removeDeadNodes } from './passes.ts'
import { StoredProducts } from './stored-products.ts'
import type { Value } from './values.ts'

export interface LoweringOptions {
  /**
   * Multiply frozen weights that are stored as bfloat16 where they lie, with what they are multiplied by rounded to
   * bfloat16 (stored-products.ts), on devices that have such products. Elsewhere all is float32.
   */
  readonly bfloat16?: boolean
}

/** A graph as a device can run it. */
export interface LoweredGraph {
  /** What the host computes before each run from what is fed; its outputs are inputs of `device`. */
  readonly host: Graph | undefined
  readonly device: Graph
  /** Nodes of `device` that it has no kernel for, 'Op type (name)': the runtime computes them on the CPU, copying to and fro. */
  readonly fallbacks: readonly string[]
}

/** A graph as it is. */
export function unlowered(graph: Graph): LoweredGraph {
  return { host: undefined, device: graph, fallbacks: [] }
}

/**
 * Rewrites a graph by the device table: operations without a kernel become others that have one, integers move to the
 * host, and what constants alone enter is left for the runtime to fold at load. Inputs and outputs keep their names.
 */
export function lower(
  graph: Graph,
  device: Accelerator,
  { bfloat16 = false }: LoweringOptions = {},
): LoweredGraph {
  const g = new GraphBuilder('lowered')
  const frozen = new Frozen(graph, foldsAlways(device))
  const read = new Set(graph.outputs.map(({ name }) => name))
  for (const input of graph.nodes.flatMap((node) => node.inputs)) if (input) read.add(input.name)
  const producers = new Map<string, Node>()
  const graphSoFar = {
    g,
    producerOf: ({ name }: Value) => producers.get(name),
    isFrozen: (value: Value) => frozen.has(value),
  }
  const context = {
    ...graphSoFar,
    device,
    inputs: graph.inputs,
    isRead: ({ name }: Value) => read.has(name),
    storedProducts: bfloat16 && multipliesBfloat16(device) ? new StoredProducts(graphSoFar) : undefined,
  }
  const replaced = new Map<string, Value>()
  const current = (value: Value | null) => (value ? (replaced.get(value.name) ?? value) : null)
  for (const original of graph.nodes) {
    const node = { ...original, inputs: original.inputs.map(current) } as Node
    const rule = loweringRules[node.op] as LoweringRule | undefined
    const start = g.nodes.length
    const results = frozen.madeBefore(node) ?? g.scope(original.outputs[0]!.name, () => rule?.(context, node))
    if (!results) g.nodes.push(node)
    for (const [index, { name }] of node.outputs.entries()) {
      const result = results?.[index]
      if (result) replaced.set(name, result)
    }
    for (const added of g.nodes.slice(start)) {
      frozen.note(added)
      for (const { name } of added.outputs) producers.set(name, added)
    }
  }
  const nodes = withOutputNames(g, graph.outputs, replaced)
  const parts = takeHostPart({
    ...graph,
    nodes: removeDeadNodes(nodes, graph.outputs),
    constants: [...graph.constants, ...g.finish([]).constants],
  })
  const needsKernel = (node: Node) => !foldsAlways(device) || !frozen.has(node.outputs[0]!)
  const lacking = parts.device.nodes.filter((node) => !hasKernel(device, node) && needsKernel(node))
  return { ...parts, fallbacks: lacking.map(nameOf) }
}

/** WebGPU has no 16-bit weights to keep, so what constants alone enter is always computed at load (onnx/session.ts). */
function foldsAlways(device: Accelerator): boolean {
  return device === 'webgpu'
}

function nameOf({ op, inputs, outputs }: Node): string {
  return `${op} ${inputs[0]!.dtype} (${outputs[0]!.name})`
}

/** The nodes, where what has taken an output's place bears the output's name. */
function withOutputNames(
  g: GraphBuilder,
  outputs: readonly Value[],
  replaced: ReadonlyMap<string, Value>,
): Node[] {
  const computed = new Set(g.nodes.flatMap((node) => node.outputs).map(({ name }) => name))
  const named = new Map<string, Value>()
  const passedOn: Node[] = []
  for (const output of outputs) {
    const replacement = replaced.get(output.name)
    if (!replacement) continue
    if (computed.has(replacement.name) && !named.has(replacement.name)) named.set(replacement.name, output)
    else passedOn.push({ op: 'Identity', inputs: [replacement], outputs: [output], attributes: {} })
  }
  const rename = (value: Value) => named.get(value.name) ?? value
  return [...g.nodes, ...passedOn].map(
    (node) =>
      ({
        ...node,
        inputs: node.inputs.map((input) => input && rename(input)),
        outputs: node.outputs.map(rename),
      }) as Node,
  )
}

/**
 * What is computed from constants alone. Where the runtime computes it once at load, on the CPU, it needs no kernel; and
 * two nodes that compute the same (the backward pass widens weights anew) would be two copies in memory, so they become
 * one. Elsewhere they stay apart, since what is widened is to be gone between its uses.
 */
class Frozen {
  readonly #merges: boolean
  readonly #made = new Map<string, readonly Value[]>()
  readonly #inputs: ReadonlySet<string>
  readonly #variable = new Set<string>()

  constructor(graph: Graph, merges: boolean) {
    this.#merges = merges
    this.#inputs = new Set(graph.inputs.map(({ name }) => name))
  }

  has({ name }: Value): boolean {
    return !this.#inputs.has(name) && !this.#variable.has(name)
  }

  note(node: Node): void {
    const folds = !UNFOLDED.has(node.op) && node.inputs.every((input) => input === null || this.has(input))
    if (folds) this.#made.set(keyOf(node), node.outputs)
    else for (const { name } of node.outputs) this.#variable.add(name)
  }

  /** The outputs of an equal node, where constants alone enter it. */
  madeBefore(node: Node): readonly Value[] | undefined {
    return this.#merges ? this.#made.get(keyOf(node)) : undefined
  }
}

/** Never folded: packed weights would be widened at load. */
const UNFOLDED: ReadonlySet<string> = new Set(['DequantizeLinear', 'MatMulNBits'])

function keyOf({ op, inputs, attributes }: Node): string {
  return `${op}(${inputs.map((input) => input?.name ?? '')})${JSON.stringify(attributes)}`
}
