import type { Node } from './graph.ts'
import type { Value } from './values.ts'

/** Names of what the nodes of a training step compute before its backward pass. */
export interface ForwardPass {
  /** By all of its nodes. */
  readonly all: ReadonlySet<string>
  /** By its layers, without embedding, head and loss. */
  readonly layers: ReadonlySet<string>
}

/**
 * Keeps what the backward pass reads of the layers' results as float16, in half of the memory; all arithmetic stays float32.
 * Such a result is rounded as soon as it is there, and what follows reads the rounded numbers, too, so that gradients are
 * those of the loss that is reported, and the float32 original need not live until both passes have read it. Gradients are
 * never float16, so they cannot underflow and no loss is scaled (arXiv:1710.03740 scales since it rounds those as well).
 *
 * What norms read stays float32: sums of residuals are where models have numbers beyond float16's 65504. So do results of
 * one number a token, and those whose size does not depend on the batch, such as DoRA's weights.
 */
export function keepAsHalf(nodes: readonly Node[], forward: ForwardPass): Node[] {
  const isForward = (node: Node) => node.outputs.some(({ name }) => forward.all.has(name))
  const readBackward = new Set(
    nodes.filter((node) => !isForward(node)).flatMap(({ inputs }) => inputs.map((input) => input?.name)),
  )
  const normed = new Set(
    nodes.filter(({ op }) => op === 'SimplifiedLayerNormalization').map(({ inputs }) => inputs[0]!.name),
  )
  const isKept = (value: Value) =>
    value.dtype === 'float32' &&
    forward.layers.has(value.name) &&
    readBackward.has(value.name) &&
    !normed.has(value.name) &&
    value.shape.some((dim) => typeof dim === 'string') &&
    value.shape.at(-1) !== 1
  const rounded = new Map<string, Value>()
  const widenedAgain = new Map<string, Value>()
  const result: Node[] = []
  for (const node of nodes) {
    const current = isForward(node) ? rounded : widenedAgain
    const inputs = node.inputs.map((input) => (input ? (current.get(input.name) ?? input) : null))
    result.push({ ...node, inputs } as Node)
    for (const value of node.outputs.filter(isKept)) {
      const half = { ...value, name: `${value.name}/half`, dtype: 'float16' } as const
      for (const [map, suffix] of [
        [rounded, 'rounded'],
        [widenedAgain, 'again'],
      ] as const) {
        map.set(value.name, { ...value, name: `${value.name}/${suffix}` })
      }
      result.push(cast(value, half))
      result.push(cast(half, rounded.get(value.name)!), cast(half, widenedAgain.get(value.name)!))
    }
  }
  return result
}

function cast(from: Value, to: Value): Node<'Cast'> {
  return { op: 'Cast', inputs: [from], outputs: [to], attributes: { to: to.dtype } }
}
