import type { Graph, Node } from './graph.ts'
import type { Value } from './values.ts'

/** A graph in two parts: what the host computes from the inputs before each run, and the rest. */
export interface Parts {
  /** Undefined where there is nothing for it to compute. */
  readonly host: Graph | undefined
  /** Has the host's outputs among its inputs. */
  readonly device: Graph
}

/**
 * Takes out of a graph what computes integers and comparisons from the inputs alone: shapes, positions, masks by place.
 * Such nodes are few and tiny, devices lack kernels for many of them, and some (shapes) have to be in the host's memory
 * anyway. Whatever depends on a weight or on a number that the device computes stays.
 */
export function takeHostPart(graph: Graph): Parts {
  const { nodes } = graph
  const known = new Set(
    [...graph.inputs, ...graph.constants.map(({ value }) => value)].map(({ name }) => name),
  )
  const host = new Set<Node>()
  for (const node of nodes) {
    const inputs = node.inputs.filter((input) => input !== null)
    if (!inputs.every(({ name }) => known.has(name)) || !isIntegral(node)) continue
    host.add(node)
    for (const { name } of node.outputs) known.add(name)
  }
  const rest = nodes.filter((node) => !host.has(node))
  const read = new Set(rest.flatMap((node) => node.inputs).map((value) => value?.name))
  for (const output of graph.outputs) read.add(output.name)
  const crossing = [...host].flatMap((node) => node.outputs.filter(({ name }) => read.has(name)))
  if (crossing.length === 0)
    return { host: undefined, device: part(graph, nodes, graph.inputs, graph.outputs) }
  return {
    host: part(graph, [...host], graph.inputs, crossing),
    device: part(graph, rest, [...graph.inputs, ...crossing], graph.outputs),
  }
}

/** Integers and truths, and their conversion to numbers. */
function isIntegral({ op, inputs, outputs }: Node): boolean {
  const integral = ({ dtype }: Value) => dtype === 'int64' || dtype === 'bool'
  return op === 'Cast' ? integral(inputs[0]!) : outputs.every(integral)
}

function part(
  graph: Graph,
  nodes: readonly Node[],
  inputs: readonly Value[],
  outputs: readonly Value[],
): Graph {
  const used = new Set(nodes.flatMap((node) => node.inputs).map((value) => value?.name))
  return {
    nodes,
    outputs,
    inputs: inputs.filter(({ name }) => used.has(name) || outputs.some((output) => output.name === name)),
    constants: graph.constants.filter(({ value }) => used.has(value.name)),
    weights: graph.weights.filter(({ value }) => used.has(value.name)),
  }
}
