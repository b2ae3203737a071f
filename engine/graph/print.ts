import type { Graph, Node } from './graph.ts'
import { formatShape, type Value } from './values.ts'

/** A graph as text, one node a line, for snapshots and for reading. */
export function printGraph(graph: Pick<Graph, 'inputs' | 'outputs' | 'nodes'>): string {
  return [
    ...graph.inputs.map((value) => `input ${typed(value)}`),
    ...graph.nodes.map(printNode),
    `output ${graph.outputs.map((value) => value.name).join(', ')}`,
  ].join('\n')
}

function printNode(node: Node): string {
  const inputs = node.inputs.map((value) => value?.name ?? '_').join(', ')
  const attributes = Object.entries(node.attributes)
    .filter(([key]) => key !== 'shape')
    .map(([key, value]) => `${key}=${Array.isArray(value) ? `[${value.join(',')}]` : String(value)}`)
  const suffix = attributes.length === 0 ? '' : ` {${attributes.join(' ')}}`
  return `${node.outputs.map(typed).join(', ')} = ${node.op}(${inputs})${suffix}`
}

function typed(value: Value): string {
  return `${value.name}: ${value.dtype}${formatShape(value.shape)}`
}
