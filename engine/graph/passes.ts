import type { Node } from './graph.ts'
import { sameShape, type Value } from './values.ts'

/** Removes nodes whose results nobody uses. */
export function removeDeadNodes(nodes: readonly Node[], outputs: readonly Value[]): Node[] {
  const live = new Set(outputs.map((value) => value.name))
  const kept: Node[] = []
  for (const node of nodes.toReversed()) {
    if (!node.outputs.some((output) => live.has(output.name))) continue
    for (const input of node.inputs) if (input) live.add(input.name)
    kept.push(node)
  }
  return kept.reverse()
}

/**
 * Add(c, Gemm(a, b)) → Gemm(a, b, c), where the product has no other reader: onnxruntime adds C inside the product,
 * while a separate Add reads and writes the whole matrix again (16 % of an unfused LoRA step).
 */
export function fuseAddIntoGemm(nodes: readonly Node[], outputs: readonly Value[]): Node[] {
  const readers = new Map<string, number>()
  for (const value of [...outputs, ...nodes.flatMap((node) => node.inputs)]) {
    if (value) readers.set(value.name, (readers.get(value.name) ?? 0) + 1)
  }
  const products = new Map<string, Node<'Gemm'>>()
  const fused = new Set<Node>()
  const result: Node[] = []
  for (const node of nodes) {
    const replacement = node.op === 'Add' ? fuseOne(node, products, readers, fused) : node
    if (isPlainGemm(replacement)) products.set(replacement.outputs[0]!.name, replacement)
    result.push(replacement)
  }
  return result.filter((node) => !fused.has(node))
}

function isPlainGemm(node: Node): node is Node<'Gemm'> {
  return node.op === 'Gemm' && node.inputs.length === 2
}

function fuseOne(
  node: Node,
  products: Map<string, Node<'Gemm'>>,
  readers: Map<string, number>,
  fused: Set<Node>,
): Node {
  for (const [product, other] of [node.inputs, node.inputs.toReversed()]) {
    const gemm = products.get(product!.name)
    if (!gemm || readers.get(product!.name) !== 1 || !sameShape(product!.shape, other!.shape)) continue
    fused.add(gemm)
    return { ...gemm, inputs: [...gemm.inputs, other!], outputs: node.outputs }
  }
  return node
}

/**
 * Orders nodes for memory. onnxruntime walks back from the leaves, highest node index first, so the leaves' places
 * in the file decide how long activations live: gradients of weights go to the end in forward order (the last layer's
 * then run first, beside the backward pass that frees their inputs), the loss after them.
 */
export function orderForMemory(nodes: readonly Node[], gradients: readonly Value[], loss: Value): Node[] {
  const producerOf = new Map(
    nodes.flatMap((node) => node.outputs.map((output) => [output.name, node] as const)),
  )
  const read = new Set(nodes.flatMap((node) => node.inputs).map((value) => value?.name))
  const leaves = [...gradients, loss]
    .map((value) => producerOf.get(value.name))
    .filter((node): node is Node => node !== undefined)
    .filter((node) => node.outputs.every((output) => !read.has(output.name)))
  const last = new Set(leaves)
  return [...nodes.filter((node) => !last.has(node)), ...last]
}
