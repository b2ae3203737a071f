import { EngineError } from '../errors.ts'
import type { DType, Tensor } from '../tensor.ts'
import type { Constant, ExternalWeight, Graph, Node, Segment } from './graph.ts'
import { type Op, type OpAttributes, opSpecs } from './ops.ts'
import { type Dim, formatShape, type Shape, type Value } from './values.ts'

/**
 * A graph under construction: its inputs, constants and nodes, with every shape inferred on the way. Symbols in shapes
 * ('batch', 'seq') are turned into run-time values by `bindDim`.
 */
export class GraphWriter {
  readonly nodes: Node[] = []
  private readonly inputs: Value[] = []
  private readonly constants = new Map<string, Constant>()
  private readonly weights: ExternalWeight[] = []
  private readonly boundDims = new Map<string, Value>()
  private readonly dimValues = new Map<Dim, Value>()
  private readonly shapeTensors = new Map<string, Value>()
  private readonly scopes: string[] = []
  private readonly marked: Segment[] = []
  private counter = 0
  private readonly constantPrefix: string

  /** @param constantPrefix what names of constants begin with; another one for a builder that adds to a finished graph. */
  constructor(constantPrefix = 'constant') {
    this.constantPrefix = constantPrefix
  }

  // --- edges -------------------------------------------------------------------------------------------------------

  /** A tensor that is fed at every run. */
  input(name: string, dtype: DType, shape: Shape): Value {
    const value = { name, dtype, shape }
    this.inputs.push(value)
    return value
  }

  /** A constant that stays in its file and is mapped from there. */
  weight(
    name: string,
    dtype: DType,
    shape: readonly number[],
    location: Omit<ExternalWeight, 'value'>,
  ): Value {
    const value = { name, dtype, shape }
    this.weights.push({ value, ...location })
    return value
  }

  /** A constant inside the graph, of the bytes that `dtype` has in a file; equal constants are made once. */
  constant(dtype: DType, shape: readonly number[], data: Tensor['data']): Value {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    const key =
      data.length <= 16 ? `${dtype}[${shape.join()}]:${data.join()}` : `large:${this.constants.size}`
    const known = this.constants.get(key)
    if (known) return known.value
    const value = { name: `${this.constantPrefix}_${this.constants.size}`, dtype, shape }
    this.constants.set(key, { value, data: bytes })
    return value
  }

  /** A float32 scalar. */
  scalar(number: number): Value {
    return this.constant('float32', [], Float32Array.of(number))
  }

  /** An int64 vector. */
  ints(numbers: readonly number[]): Value {
    return this.constant('int64', [numbers.length], BigInt64Array.from(numbers, BigInt))
  }

  // --- run-time shapes -----------------------------------------------------------------------------------------------

  /** Says where the size of a symbol can be read at run time: axis `axis` of `source`. */
  bindDim(symbol: string, source: Value, axis: number): void {
    this.boundDims.set(symbol, this.emit('Shape', [source], { start: axis, end: axis + 1 }))
  }

  /** A dimension as an int64 vector of one element, known only when the session runs if it has symbols. */
  dimValue(dim: Dim): Value {
    if (typeof dim === 'number') return this.ints([dim])
    const bound = this.boundDims.get(dim) ?? this.dimValues.get(dim)
    if (bound) return bound
    const parts = dim.split('*')
    if (parts.length === 1) {
      throw new EngineError(
        'internal',
        'unbound_dimension',
        `no run-time value is bound to dimension '${dim}'`,
      )
    }
    const factors = parts.map((part) => this.dimValue(Number.isNaN(Number(part)) ? part : Number(part)))
    const product = factors.reduce((left, right) => this.emit('Mul', [left, right], {}))
    this.dimValues.set(dim, product)
    return product
  }

  /** A shape as an int64 vector. */
  shapeTensor(shape: Shape): Value {
    if (shape.every((dim) => typeof dim === 'number')) return this.ints(shape)
    const key = formatShape(shape)
    const known = this.shapeTensors.get(key)
    if (known) return known
    const sizes = shape.map((dim) => this.dimValue(dim))
    const value = this.emit('Concat', sizes, { axis: 0, total: null })
    this.shapeTensors.set(key, value)
    return value
  }

  // --- nodes ---------------------------------------------------------------------------------------------------------

  /** Runs `body` with its nodes named below `scope`, so that profiles and prints can be read. */
  scope<T>(scope: string, body: () => T): T {
    this.scopes.push(scope)
    try {
      return body()
    } finally {
      this.scopes.pop()
    }
  }

  /** Runs `body` and notes its nodes as one segment, whose results the backward pass may compute anew. */
  segment<T>(body: () => T): T {
    const start = this.nodes.length
    const result = body()
    this.marked.push({ start, end: this.nodes.length })
    return result
  }

  get inputValues(): readonly Value[] {
    return this.inputs
  }

  /** The segments so far, in order; they do not overlap. */
  get segments(): readonly Segment[] {
    return this.marked
  }

  /** Appends a node and returns its outputs. */
  emitAll<K extends Op>(
    op: K,
    inputs: readonly (Value | null)[],
    attributes: OpAttributes[K],
  ): readonly Value[] {
    const present = inputs.filter((input) => input !== null)
    const prefix = [...this.scopes, op].join('/')
    const outputs = opSpecs[op].infer(present, attributes).map((type, index) => ({
      name: `${prefix}_${this.counter}${index === 0 ? '' : `_${index}`}`,
      ...type,
    }))
    this.counter++
    this.nodes.push({ op, inputs, outputs, attributes })
    return outputs
  }

  /** Appends a node with one output. */
  emit<K extends Op>(op: K, inputs: readonly (Value | null)[], attributes: OpAttributes[K]): Value {
    return this.emitAll(op, inputs, attributes)[0]!
  }

  /** The finished graph with the given outputs; `nodes` may be a rewritten list of this builder's nodes. */
  finish(outputs: readonly Value[], nodes: readonly Node[] = this.nodes): Graph {
    const used = new Set(nodes.flatMap((node) => node.inputs).map((value) => value?.name))
    return {
      inputs: this.inputs,
      outputs,
      nodes,
      constants: [...this.constants.values()].filter(({ value }) => used.has(value.name)),
      weights: this.weights.filter(({ value }) => used.has(value.name)),
    }
  }
}
