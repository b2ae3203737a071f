import { EngineError } from '../errors.ts'
import type { DType } from '../tensor.ts'
import { GraphWriter } from './graph-writer.ts'
import type { OpAttributes } from './ops.ts'
import { type Dim, formatShape, type Shape, sameShape, shapeSize, type Value } from './values.ts'

type Transposition = { transA?: 0 | 1; transB?: 0 | 1; alpha?: number }

/** Writes a graph with one method per operation, named as ONNX names it and typed by `OpAttributes`. */
export class GraphBuilder extends GraphWriter {
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
  /** round(x / scale) + zero in the type of the zero point; both are scalars. */
  QuantizeLinear = (x: Value, scale: Value, zero: Value) => this.emit('QuantizeLinear', [x, scale, zero], {})
  Transpose = (x: Value, perm: readonly number[]) => this.emit('Transpose', [x], { perm })
  /** The joined size is the sum of the parts', unless `total` names what it is known to be. */
  Concat = (values: readonly Value[], axis: number, total: Dim | null = null) =>
    this.emit('Concat', values, { axis, total })
  Equal = (a: Value, b: Value) => this.emit('Equal', [a, b], {})
  GreaterOrEqual = (a: Value, b: Value) => this.emit('GreaterOrEqual', [a, b], {})
  /** int64 index of the largest along `axis`. */
  ArgMax = (x: Value, axis: number) => this.emit('ArgMax', [x], { axis, keepdims: 0 })
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
  /** (a − zero) · b for matrices of 8-bit integers, in int32. */
  MatMulInteger = (a: Value, b: Value, zero: Value) => this.emit('MatMulInteger', [a, b, zero], {})
  /** x·Wᵀ with W [N, K] in codes of 4 or 8 bits (onnxruntime, ContribOperators.md; packed/nbits-packing.ts lays them out). */
  MatMulNBits = (
    x: Value,
    codes: Value,
    scales: Value,
    zeros: Value,
    attributes: OpAttributes['MatMulNBits'],
  ) => this.emit('MatMulNBits', [x, codes, scales, zeros], attributes)
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
}
