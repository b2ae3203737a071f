import type { Graph, Node } from '../engine/graph/graph.ts'
import { type LoweredGraph, lower } from '../engine/graph/lower.ts'
import type { Value } from '../engine/graph/values.ts'

/**
 * A graph lowered for CUDA with its products of bfloat16, in a form that the CPU computes: what goes into such a product is
 * rounded to bfloat16 and multiplied as float32 (where products of two bfloat16 are exact), and the sum is rounded. So it
 * comes to what CUDA comes to, but for the order in which a sum is added up.
 */
export function asOnCuda(graph: Graph): LoweredGraph {
  const { host, device, fallbacks } = lower(graph, 'cuda', { bfloat16: true })
  return { host, device: { ...device, nodes: device.nodes.flatMap(computable) }, fallbacks }
}

/** Whether the node multiplies numbers of bfloat16. */
export function isBfloat16Product({ op, inputs }: Node): boolean {
  return ['Gemm', 'MatMul', 'FusedMatMul'].includes(op) && inputs[0]!.dtype === 'bfloat16'
}

function computable(node: Node): Node[] {
  if (!isBfloat16Product(node)) return [node]
  const [result] = node.outputs
  const wide = (value: Value, what: string): Value => ({
    ...value,
    name: `${result!.name}/${what}`,
    dtype: 'float32',
  })
  const inputs = node.inputs.map((input, index) => wide(input!, `operand ${index}`))
  const sum = wide(result!, 'sum')
  return [
    ...inputs.map((input, index) => cast(node.inputs[index]!, input)),
    { ...node, inputs, outputs: [sum] } as Node,
    cast(sum, result!),
  ]
}

function cast(from: Value, to: Value): Node<'Cast'> {
  return { op: 'Cast', inputs: [from], outputs: [to], attributes: { to: to.dtype } }
}
