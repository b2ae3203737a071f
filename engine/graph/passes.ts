import type { GraphBuilder } from './builder.ts'
import type { Node } from './graph.ts'
import { type Shape, sameShape, type Value } from './values.ts'

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
 * SoftmaxCrossEntropyLoss as LogSoftmax and a choice from it. onnxruntime has no kernel of its own for the operation, and
 * the function that it puts in its place fails where there are no rows.
 */
export function lowerCrossEntropy(g: GraphBuilder, nodes: readonly Node[]): Node[] {
  return nodes.flatMap((node) => {
    if (node.op !== 'SoftmaxCrossEntropyLoss') return [node]
    const [logits, labels] = node.inputs as readonly Value[]
    const [loss, logProbabilities] = node.outputs
    const rows = loss!.shape[0]!
    const between = (name: string, { dtype }: Value, shape: Shape): Value => ({
      name: `${loss!.name}/${name}`,
      dtype,
      shape,
    })
    const column = between('column', labels!, [rows, 1])
    const chosen = between('chosen', logits!, [rows, 1])
    const flat = between('flat', logits!, [rows])
    const reshape = (from: Value, to: Value, target: number[]): Node<'Reshape'> => ({
      op: 'Reshape',
      inputs: [from, g.ints(target)],
      outputs: [to],
      attributes: { shape: to.shape, allowzero: 0 },
    })
    const lowered = [
      { op: 'LogSoftmax', inputs: [logits!], outputs: [logProbabilities!], attributes: { axis: -1 } },
      reshape(labels!, column, [0, 1]),
      {
        op: 'GatherElements',
        inputs: [logProbabilities!, column],
        outputs: [chosen],
        attributes: { axis: 1 },
      },
      reshape(chosen, flat, [0]),
      { op: 'Neg', inputs: [flat], outputs: [loss!], attributes: {} },
    ]
    return lowered as Node[]
  })
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
 * Norm(Add(a, b)) → one operation that also gives the sum, which the next residual reads. Decoding has so little to
 * compute for each token that every operation counts (docs/LOG.md).
 */
export function fuseAddIntoNorm(nodes: readonly Node[]): Node[] {
  const sums = new Map<string, Node>()
  const fused = new Map<Node, Node>()
  for (const node of nodes) {
    if (node.op === 'SimplifiedLayerNormalization') {
      const [x, scale] = node.inputs
      const sum = sums.get(x!.name)
      if (sum) fused.set(node, skipNorm(sum, scale!, node as Node<'SimplifiedLayerNormalization'>))
      if (sum) fused.set(sum, fused.get(node)!)
    }
    // what reads a sum before its norm needs it to stand there
    for (const input of node.inputs) if (input) sums.delete(input.name)
    const [a, b] = node.inputs
    if (node.op === 'Add' && sameShape(a!.shape, b!.shape)) sums.set(node.outputs[0]!.name, node)
  }
  return nodes.flatMap((node) => {
    const replacement = fused.get(node)
    if (!replacement) return [node]
    return node.op === 'Add' ? [] : [replacement]
  })
}

function skipNorm(
  { inputs: [a, b], outputs: [sum] }: Node,
  scale: Value,
  { outputs: [y], attributes: { epsilon } }: Node<'SimplifiedLayerNormalization'>,
): Node<'SkipSimplifiedLayerNormalization'> {
  return {
    op: 'SkipSimplifiedLayerNormalization',
    inputs: [a!, b!, scale],
    outputs: [y!, sum!],
    attributes: { epsilon },
  }
}

/**
 * Orders nodes for memory. onnxruntime walks back from the leaves, highest node index first, so the leaves' places
 * in the file decide how long activations live: gradients of weights go to the end in forward order (the last layer's
 * then run first, beside the backward pass that frees their inputs). The loss stands before them, so that it runs last:
 * where it is a sum of parts, each part's logits are used up by its own backward pass before the next part's are made.
 */
export function orderForMemory(nodes: readonly Node[], gradients: readonly Value[], loss: Value): Node[] {
  const producerOf = new Map(
    nodes.flatMap((node) => node.outputs.map((output) => [output.name, node] as const)),
  )
  const read = new Set(nodes.flatMap((node) => node.inputs).map((value) => value?.name))
  const leaves = [loss, ...gradients]
    .map((value) => producerOf.get(value.name))
    .filter((node): node is Node => node !== undefined)
    .filter((node) => node.outputs.every((output) => !read.has(output.name)))
  const last = new Set(leaves)
  return [...nodes.filter((node) => !last.has(node)), ...last]
}
