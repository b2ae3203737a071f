import { EngineError } from '../errors.ts'
import type { DType, Tensor } from '../tensor.ts'
import type { Constant, ExternalWeight, Graph, Node, Segment } from './graph.ts'
import { type Op, type OpAttributes, opSpecs } from './ops.ts'
import {
  type Dim,
  formatShape,
  multiplyDims,
  type Shape,
  sameShape,
  shapeSize,
  type Value,
} from './values.ts'

type Transposition = { transA?: 0 | 1; transB?: 0 | 1; alpha?: number }

/**
 * Writes a graph node by node, inferring every shape on the way. One method per operation, named as ONNX names it.
 * Symbols in shapes ('batch', 'seq') are turned into run-time values by `bindDim`.
 */
export class GraphBuilder {
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
    const product = factors.reduce((left, right) => this.Mul(left, right))
    this.dimValues.set(dim, product)
    return product
  }

  /** A shape as an int64 vector. */
  shapeTensor(shape: Shape): Value {
    if (shape.every((dim) => typeof dim === 'number')) return this.ints(shape)
    const key = formatShape(shape)
    const known = this.shapeTensors.get(key)
    if (known) return known
    const value = this.Concat(
      shape.map((dim) => this.dimValue(dim)),
      0,
    )
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
    this.nodes.push({ op, inputs, outputs, attributes } as unknown as Node)
    return outputs
  }

  /** Appends a node with one output. */
  emit<K extends Op>(op: K, inputs: readonly (Value | null)[], attributes: OpAttributes[K]): Value {
    return this.emitAll(op, inputs, attributes)[0]!
  }

  Add = (a: Value, b: Value) => this.emit('Add', [a, b], {})
  Sub = (a: Value, b: Value) => this.emit('Sub', [a, b], {})
  Mul = (a: Value, b: Value) => this.emit('Mul', [a, b], {})
  Div = (a: Value, b: Value) => this.emit('Div', [a, b], {})
  Neg = (x: Value) => this.emit('Neg', [x], {})
  Exp = (x: Value) => this.emit('Exp', [x], {})
  Log = (x: Value) => this.emit('Log', [x], {})
  Relu = (x: Value) => this.emit('Relu', [x], {})
  /** -1, 0 or 1. */
  Sign = (x: Value) => this.emit('Sign', [x], {})
  Sqrt = (x: Value) => this.emit('Sqrt', [x], {})
  /** x as a constant to the backward pass: no gradient flows through it. */
  Detach = (x: Value) => this.emit('Identity', [x], {})
  Sigmoid = (x: Value) => this.emit('Sigmoid', [x], {})
  /** log(1 + exp(x)), which is -log sigmoid(-x). */
  Softplus = (x: Value) => this.emit('Softplus', [x], {})
  Tanh = (x: Value) => this.emit('Tanh', [x], {})
  Gelu = (x: Value) => this.emit('Gelu', [x], { approximate: 'tanh' })
  /** x · sigmoid(alpha · x); alpha 1 is SiLU. */
  QuickGelu = (x: Value, alpha: number) => this.emit('QuickGelu', [x], { alpha })
  Softmax = (x: Value, axis = -1) => this.emit('Softmax', [x], { axis })
  LogSoftmax = (x: Value, axis = -1) => this.emit('LogSoftmax', [x], { axis })
  Cast = (x: Value, to: DType) => (x.dtype === to ? x : this.emit('Cast', [x], { to }))
  /** float32 of integer codes [rows, columns] in blocks along the columns; zeros, if any, have the codes' type. */
  DequantizeLinear = (codes: Value, scales: Value, zeros: Value | undefined, blockSize: number) =>
    this.emit('DequantizeLinear', zeros ? [codes, scales, zeros] : [codes, scales], {
      axis: 1,
      block_size: blockSize,
    })
  Transpose = (x: Value, perm: readonly number[]) => this.emit('Transpose', [x], { perm })
  /** The joined size is the sum of the parts', unless `total` names what it is known to be. */
  Concat = (values: readonly Value[], axis: number, total: Dim | null = null) =>
    this.emit('Concat', values, { axis, total })
  Equal = (a: Value, b: Value) => this.emit('Equal', [a, b], {})
  GreaterOrEqual = (a: Value, b: Value) => this.emit('GreaterOrEqual', [a, b], {})
  Gather = (data: Value, indices: Value, axis = 0) => this.emit('Gather', [data, indices], { axis })
  GatherElements = (data: Value, indices: Value, axis: number) =>
    this.emit('GatherElements', [data, indices], { axis })
  ScatterElements = (
    data: Value,
    indices: Value,
    updates: Value,
    attributes: OpAttributes['ScatterElements'],
  ) => this.emit('ScatterElements', [data, indices, updates], attributes)
  ScatterND = (data: Value, indices: Value, updates: Value, reduction: 'none' | 'add') =>
    this.emit('ScatterND', [data, indices, updates], { reduction })
  MatMul = (a: Value, b: Value) => this.emit('MatMul', [a, b], {})
  /** alpha · op(a) · op(b) over leading batch dimensions. */
  FusedMatMul = (a: Value, b: Value, { transA = 0, transB = 0, alpha = 1 }: Transposition = {}) =>
    this.emit('FusedMatMul', [a, b], { transA, transB, alpha })
  /** alpha · op(a) · op(b) + c for matrices. */
  Gemm = (a: Value, b: Value, { transA = 0, transB = 0, alpha = 1 }: Transposition = {}, c?: Value) =>
    this.emit('Gemm', c ? [a, b, c] : [a, b], { transA, transB, alpha })
  /** Rotates x [batch, seq, heads·width]; `partial` rotates only the first dimensions of each head. */
  RotaryEmbedding = (
    x: Value,
    positions: Value,
    cos: Value,
    sin: Value,
    { interleaved = 0, partial }: { interleaved?: 0 | 1; partial?: { heads: number; rotated: number } } = {},
  ) =>
    this.emit('RotaryEmbedding', [x, positions, cos, sin], {
      interleaved,
      num_heads: partial?.heads ?? 0,
      rotary_embedding_dim: partial?.rotated ?? 0,
    })

  /** RMS norm of the last axis times `scale`: the result, and 1 / rms for its gradient. */
  SimplifiedLayerNormalization(x: Value, scale: Value, epsilon: number): readonly [Value, Value] {
    const [y, inverseRms] = this.emitAll('SimplifiedLayerNormalization', [x, scale], { axis: -1, epsilon })
    return [y!, inverseRms!]
  }

  /** RMS norm of a + b times `scale`, and a + b. */
  SkipSimplifiedLayerNormalization(
    a: Value,
    b: Value,
    scale: Value,
    epsilon: number,
  ): readonly [Value, Value] {
    const [y, sum] = this.emitAll('SkipSimplifiedLayerNormalization', [a, b, scale], { epsilon })
    return [y!, sum!]
  }

  ReduceSum(x: Value, axes: readonly number[], keepdims: 0 | 1): Value {
    return this.emit('ReduceSum', [x, this.ints(axes)], { axes, keepdims })
  }

  ReduceMax(x: Value, axes: readonly number[], keepdims: 0 | 1): Value {
    return this.emit('ReduceMax', [x, this.ints(axes)], { axes, keepdims })
  }

  ReduceMean(x: Value, axes: readonly number[], keepdims: 0 | 1): Value {
    return this.emit('ReduceMean', [x, this.ints(axes)], { axes, keepdims })
  }

  /** float32 zeros. */
  Zeros(shape: Shape): Value {
    return this.emit('ConstantOfShape', [this.shapeTensor(shape)], { shape })
  }

  Expand(x: Value, shape: Shape): Value {
    return sameShape(x.shape, shape) ? x : this.emit('Expand', [x, this.shapeTensor(shape)], { shape })
  }

  /** x[start .. start + size) along `axis`; the size may be symbolic. */
  Slice(x: Value, axis: number, start: number, size: Dim): Value {
    const shape = x.shape.map((dim, index) => (index === axis ? size : dim))
    const end =
      typeof size === 'number' ? this.ints([start + size]) : this.Add(this.dimValue(size), this.ints([start]))
    return this.emit('Slice', [x, this.ints([start]), end, this.ints([axis])], { shape })
  }

  /**
   * x cut along `axis` into parts of the given sizes, which may be symbolic. Sizes that only the run finds out come as
   * an int64 vector in `found`; their symbols are then bound to the parts.
   */
  Split(x: Value, axis: number, sizes: readonly Dim[], found?: Value): readonly Value[] {
    const parts = this.emitAll('Split', [x, found ?? this.shapeTensor(sizes)], { axis, sizes })
    if (found) {
      for (const [index, size] of sizes.entries()) {
        if (typeof size === 'string') this.bindDim(size, parts[index]!, axis)
      }
    }
    return parts
  }

  MatMulNBits = (
    x: Value,
    codes: Value,
    scales: Value,
    zeros: Value,
    attributes: OpAttributes['MatMulNBits'],
  ) => this.emit('MatMulNBits', [x, codes, scales, zeros], attributes)
  /** int64 index of the largest along `axis`. */
  ArgMax = (x: Value, axis: number) => this.emit('ArgMax', [x], { axis, keepdims: 0 })

  /** int64 0, 1, …, size - 1; the size may be symbolic. */
  Range(size: Dim): Value {
    const [zero, one] = [0n, 1n].map((value) => this.constant('int64', [], BigInt64Array.of(value)))
    return this.emit('Range', [zero!, this.Reshape(this.dimValue(size), []), one!], { size })
  }

  /** The k largest along `axis`, in order, and their indices; with `largest` 0 the k smallest. */
  TopK(x: Value, k: Dim, axis: number, largest: 0 | 1 = 1): readonly [Value, Value] {
    const [values, indices] = this.emitAll('TopK', [x, this.dimValue(k)], { axis, largest, sorted: 1, k })
    return [values!, indices!]
  }

  /** -log softmax(logits)[label] of each row, and all log-probabilities for its gradient. */
  SoftmaxCrossEntropyLoss(logits: Value, labels: Value): readonly [Value, Value] {
    const [loss, logProbabilities] = this.emitAll('SoftmaxCrossEntropyLoss', [logits, labels], {
      reduction: 'none',
    })
    return [loss!, logProbabilities!]
  }

  /**
   * The same elements in another shape. A symbol that stands on the same axis before and after is copied (0), one
   * unknown is left to the runtime (-1), and only further ones need a run-time shape.
   */
  Reshape(x: Value, shape: Shape): Value {
    if (sameShape(x.shape, shape)) return x
    if (shapeSize(x.shape) !== shapeSize(shape)) {
      const from = `${x.name} ${formatShape(x.shape)}`
      throw new EngineError(
        'internal',
        'shape_mismatch',
        `Reshape: ${from} does not fit ${formatShape(shape)}`,
      )
    }
    const target = shape.map((dim, axis) => (typeof dim === 'number' ? dim : x.shape[axis] === dim ? 0 : -1))
    const unknown = target.filter((dim) => dim === -1).length
    return unknown <= 1
      ? this.emit('Reshape', [x, this.ints(target)], { shape, allowzero: 0 })
      : this.emit('Reshape', [x, this.shapeTensor(shape)], { shape, allowzero: 1 })
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

  /** rows · columns as one symbol, for code that flattens. */
  static product(...dims: Dim[]): Dim {
    return dims.reduce(multiplyDims)
  }
}
