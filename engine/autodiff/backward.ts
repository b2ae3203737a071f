import { EngineError } from '../errors.ts'
import type { GraphBuilder } from '../graph/builder.ts'
import type { Node, Segment } from '../graph/graph.ts'
import type { Op } from '../graph/ops.ts'
import { formatShape, type Shape, sameShape, type Value } from '../graph/values.ts'
import { type GradContext, type GradRule, manyOutputs, NO_GRAD, NOT_DIFFERENTIABLE, rules } from './rules.ts'

export interface BackwardOptions {
  /**
   * Segments of the forward pass whose results are computed anew for the backward pass instead of being kept (gradient
   * checkpointing, arXiv:1604.06174). They must not overlap.
   */
  readonly recompute?: readonly Segment[]
}

/**
 * Reverse-mode differentiation of a graph: appends to `g` the nodes that compute the gradient of the scalar `loss` by
 * each parameter, and returns those gradients in order. Nothing is emitted for values that lead to no parameter.
 * Throws when a parameter does not reach the loss or an operation on the way has no derivative.
 */
export function backward(
  g: GraphBuilder,
  loss: Value,
  parameters: readonly Value[],
  { recompute = [] }: BackwardOptions = {},
): Value[] {
  const forward = [...g.nodes]
  const wanted = valuesThatDependOn(parameters, forward)
  const frozen = frozenNodes(g, insideOf(g.segments, forward))
  const again = computeAgain(g, forward, recompute)
  const sum = summation(g)
  const contributions = new Map<string, Value[]>([[loss.name, [g.scalar(1)]]])
  for (const node of forward.toReversed()) {
    if (!node.outputs.some((output) => contributions.has(output.name))) continue
    const needs = node.inputs.map((input) => input !== null && wanted.has(input.name))
    if (!needs.includes(true)) continue
    const dys = node.outputs.map((output) => {
      const parts = contributions.get(output.name)
      return parts ? sum(parts) : null
    })
    const gradients = applyRule(g, again.get(node) ?? withFrozenAnew(g, node, frozen), dys, needs)
    node.inputs.forEach((input, index) => {
      const gradient = gradients[index]
      if (!input || !gradient || !needs[index]) return
      const known = contributions.get(input.name) ?? []
      contributions.set(input.name, [...known, reduceTo(g, gradient, input.shape)])
    })
  }
  return parameters.map((parameter) => {
    const parts = contributions.get(parameter.name)
    if (!parts) {
      throw new EngineError('internal', 'no_gradient_path', `${parameter.name} does not influence the loss`)
    }
    return sum(parts)
  })
}

function insideOf(segments: readonly Segment[], nodes: readonly Node[]): Node[] {
  return segments.flatMap(({ start, end }) => nodes.slice(start, end))
}

/**
 * Appends the nodes of the segments once more, reading each other and what entered their segment, and returns each
 * node's copy. All copies stand before the backward pass, so that onnxruntime, which runs the highest node first,
 * goes on with the backward pass wherever it can and begins a segment's copy only when its turn has come. Integers
 * (shapes, indices) are small and stay.
 */
function computeAgain(
  g: GraphBuilder,
  nodes: readonly Node[],
  segments: readonly Segment[],
): Map<Node, Node> {
  const copies = new Map<Node, Node>()
  for (const segment of segments) {
    const anew = new Map<string, Value>()
    const current = (value: Value | null) => (value ? (anew.get(value.name) ?? value) : null)
    for (const node of insideOf([segment], nodes)) {
      const inputs = node.inputs.map(current)
      const integers = node.outputs.every(({ dtype }) => dtype === 'int64')
      const outputs = integers ? node.outputs : g.emitAll(node.op, inputs, node.attributes)
      for (const [index, output] of node.outputs.entries()) anew.set(output.name, outputs[index]!)
      copies.set(node, { ...node, inputs, outputs })
    }
  }
  return copies
}

function applyRule(
  g: GraphBuilder,
  node: Node,
  dys: readonly (Value | null)[],
  needs: readonly boolean[],
): readonly (Value | null)[] {
  const rule = rules[node.op]
  if (rule === NO_GRAD) return []
  const [dy] = dys
  const outsideFirst = !dy || dys.slice(1).some((other) => other !== null)
  if (rule === NOT_DIFFERENTIABLE || (outsideFirst && !manyOutputs.has(node.op))) {
    const place = `${node.op} (${node.outputs[0]!.name})`
    throw new EngineError('internal', 'not_differentiable', `failed to compute the gradient of ${place}`)
  }
  const context = {
    g,
    inputs: node.inputs,
    outputs: node.outputs,
    attributes: node.attributes,
    dy,
    dys,
    needs,
  }
  // The table pairs each op with its own attributes; the union of all ops can't say that.
  return (rule as GradRule<Op>)(context as unknown as GradContext<Op>)
}

/** Nodes that compute from constants alone, such as the widening of frozen weights. By the names of their results. */
function frozenNodes(g: GraphBuilder, nodes: readonly Node[]): Map<string, Node> {
  const varying = new Set(g.inputValues.map(({ name }) => name))
  for (const node of g.nodes) for (const { name } of node.outputs) varying.add(name)
  const frozen = new Map<string, Node>()
  for (const node of nodes) {
    if (node.inputs.some((input) => input && varying.has(input.name))) continue
    for (const { name } of node.outputs) {
      frozen.set(name, node)
      varying.delete(name)
    }
  }
  return frozen
}

/**
 * The node with such inputs computed anew for its rule. Reading what the forward pass made would keep a float32 copy of
 * every layer's frozen weights alive until the backward pass comes back to it; widening again costs a few percent of
 * the time.
 */
function withFrozenAnew(g: GraphBuilder, node: Node, frozen: ReadonlyMap<string, Node>): Node {
  const anew = (value: Value | null): Value | null => {
    const producer = value ? frozen.get(value.name) : undefined
    if (!value || !producer) return value
    const outputs = g.emitAll(producer.op, producer.inputs.map(anew), producer.attributes)
    return outputs[producer.outputs.findIndex(({ name }) => name === value.name)]!
  }
  return { ...node, inputs: node.inputs.map(anew) }
}

/** Names of all values through which a parameter can reach the loss. */
function valuesThatDependOn(parameters: readonly Value[], nodes: readonly Node[]): Set<string> {
  const names = new Set(parameters.map((parameter) => parameter.name))
  for (const node of nodes) {
    if (rules[node.op] === NO_GRAD) continue
    if (!node.inputs.some((input) => input && names.has(input.name))) continue
    for (const output of node.outputs) names.add(output.name)
  }
  return names
}

/** Sums contributions with matrix products last, so that each addition can be fused into a product. */
function summation(g: GraphBuilder): (parts: readonly Value[]) => Value {
  const products = new Set<string>()
  let seen = 0
  return (parts) => {
    for (; seen < g.nodes.length; seen++) {
      const node = g.nodes[seen]!
      if (node.op === 'Gemm') products.add(node.outputs[0]!.name)
    }
    const ordered = [
      ...parts.filter((part) => !products.has(part.name)),
      ...parts.filter((part) => products.has(part.name)),
    ]
    return ordered.reduce((total, part) => g.Add(total, part))
  }
}

/** The one place where broadcasting is undone: sums over the axes that the input did not have. */
function reduceTo(g: GraphBuilder, gradient: Value, shape: Shape): Value {
  if (sameShape(gradient.shape, shape)) return gradient
  const extra = gradient.shape.length - shape.length
  const axes = gradient.shape
    .map((dim, axis) => ({ axis, repeated: axis < extra || (shape[axis - extra] === 1 && dim !== 1) }))
    .filter(({ repeated }) => repeated)
    .map(({ axis }) => axis)
  if (extra < 0) {
    throw new EngineError(
      'internal',
      'shape_mismatch',
      `a gradient of shape ${formatShape(gradient.shape)} cannot belong to ${formatShape(shape)}`,
    )
  }
  return g.Reshape(g.ReduceSum(gradient, axes, 1), shape)
}
