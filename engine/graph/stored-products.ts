import type { GraphBuilder } from './builder.ts'
import type { Node } from './graph.ts'
import type { Value } from './values.ts'

/** What a rewrite may ask about the graph so far. */
export interface Rewriting {
  readonly g: GraphBuilder
  /** The node that makes a value; undefined for inputs, constants and weights. */
  readonly producerOf: (value: Value) => Node | undefined
  /** Whether the value is computed from constants and weights alone. */
  readonly isFrozen: (value: Value) => boolean
}

type Product = Node<'Gemm'> | Node<'MatMul'> | Node<'FusedMatMul'>

/**
 * Products of a frozen weight that is stored as bfloat16, with the weight read where it lies: x·W (+ c) becomes
 * float32(bfloat16(x)·W) (+ c). So 2 bytes of memory are read for a weight where widening it first reads 2, writes 4 and
 * reads 4. The product adds up in float32 and is rounded once at its end; c is added in float32, so that residuals and
 * adapters stay exact. What several products read (queries, keys and values one input) is rounded once for all of them.
 *
 * Weights stored as float16 are left alone: activations and gradients have numbers beyond what float16 holds, on both ends,
 * and bfloat16 would cut three bits off the weight.
 */
export class StoredProducts {
  readonly #graph: Rewriting
  readonly #rounded = new Map<string, Value>()
  readonly #joined = new Map<string, Value>()

  constructor(graph: Rewriting) {
    this.#graph = graph
  }

  /** What stands for the node, or undefined where neither side, or both, are such weights. */
  replace(node: Product): Value | undefined {
    const { g } = this.#graph
    const [a, b, c] = node.inputs
    const [left, right] = [this.#stored(a!), this.#stored(b!)]
    if ((left === undefined) === (right === undefined)) return undefined
    const operands = [left ?? this.#round(a!), right ?? this.#round(b!)]
    const product = g.Cast(g.emit(node.op, operands, node.attributes), 'float32')
    return c ? g.Add(product, c) : product
  }

  /** A widened weight, or several joined, as stored. */
  #stored(value: Value): Value | undefined {
    const { g, producerOf, isFrozen } = this.#graph
    if (value.dtype !== 'float32' || !isFrozen(value)) return undefined
    const node = producerOf(value)
    if (node?.op === 'Cast') return node.inputs[0]!.dtype === 'bfloat16' ? node.inputs[0]! : undefined
    if (node?.op !== 'Concat') return undefined
    const known = this.#joined.get(value.name)
    if (known) return known
    const parts = node.inputs.map((part) => this.#stored(part!))
    if (parts.includes(undefined)) return undefined
    const joined = g.emit('Concat', parts as Value[], (node as Node<'Concat'>).attributes)
    this.#joined.set(value.name, joined)
    return joined
  }

  #round(x: Value): Value {
    const rounded = this.#rounded.get(x.name) ?? this.#graph.g.Cast(x, 'bfloat16')
    this.#rounded.set(x.name, rounded)
    return rounded
  }
}
