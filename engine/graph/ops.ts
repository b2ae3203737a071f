import type { DType } from '../tensor.ts'
import {
  inferBroadcast,
  inferComparison,
  inferConcat,
  inferGather,
  inferGemm,
  inferMatMul,
  inferReduce,
  inferTopK,
  inferTranspose,
} from './shape-rules.ts'
import type { Dim, ResultType, Shape, Value } from './values.ts'

type None = Record<string, never>

/**
 * Every operation that a graph may hold, with its typed attributes. The builder's methods, the shape rules and the
 * gradient rules are all keyed by this interface, so a missing one does not compile. Shapes that ONNX takes as inputs
 * (Reshape, Expand, reductions' axes) are ordinary int64 inputs made by the builder; `shape` records the result.
 */
export interface OpAttributes {
  Add: None
  Sub: None
  Mul: None
  Div: None
  Neg: None
  Exp: None
  Log: None
  Relu: None
  Sign: None
  Sqrt: None
  /** The same tensor, through which no gradient flows. */
  Identity: None
  Sigmoid: None
  Softplus: None
  Tanh: None
  /** x·Φ(x) with the normal distribution's Φ approximated by tanh (arXiv:1606.08415). */
  Gelu: { approximate: 'tanh' }
  QuickGelu: { alpha: number }
  Softmax: { axis: number }
  LogSoftmax: { axis: number }
  Cast: { to: DType }
  /**
   * (codes - zero points) · scales, a scale and a zero point for each block of `block_size` codes along `axis`; block_size 0
   * with one scale for all.
   */
  DequantizeLinear: { axis: number; block_size: number }
  /** round(x / scale) + zero, clamped to the range of the zero point's type; half goes to even. */
  QuantizeLinear: None
  /** allowzero 1: a 0 in the fed shape is an empty axis; 0: it copies the input's axis. */
  Reshape: { shape: Shape; allowzero: 0 | 1 }
  Expand: { shape: Shape }
  Transpose: { perm: readonly number[] }
  /** `total` names the joined size where it is not the sum of symbols that the graph could name. */
  Concat: { axis: number; total: Dim | null }
  /** int64 0, 1, … below the input, which is of that size. */
  Range: { size: Dim }
  Equal: None
  GreaterOrEqual: None
  /** The k largest (or smallest) along an axis in order, lower index first among equals, and where they stood. */
  TopK: { axis: number; largest: 0 | 1; sorted: 1; k: Dim }
  /** Index of the largest along an axis, the lowest among equals. */
  ArgMax: { axis: number; keepdims: 0 | 1 }
  Shape: { start: number; end: number }
  ConstantOfShape: { shape: Shape }
  Gather: { axis: number }
  GatherElements: { axis: number }
  /** Loss of each row and log-probabilities; labels are int64. */
  SoftmaxCrossEntropyLoss: { reduction: 'none' }
  ScatterElements: { axis: number; reduction: 'none' | 'add' }
  ScatterND: { reduction: 'none' | 'add' }
  Slice: { shape: Shape }
  Split: { axis: number; sizes: readonly Dim[] }
  ReduceSum: { axes: readonly number[]; keepdims: 0 | 1 }
  ReduceMean: { axes: readonly number[]; keepdims: 0 | 1 }
  ReduceMax: { axes: readonly number[]; keepdims: 0 | 1 }
  Gemm: { transA: 0 | 1; transB: 0 | 1; alpha: number }
  MatMul: None
  FusedMatMul: { transA: 0 | 1; transB: 0 | 1; alpha: number }
  /** (A − zero of A)·(B − zero of B) of 8-bit integers in int32. */
  MatMulInteger: None
  /** x [rows, K] · Wᵀ of W [N, K] in blocks of unsigned integers. Level 4 rounds x to 8 bits. */
  MatMulNBits: { K: number; N: number; bits: 4 | 8; block_size: number; accuracy_level: 0 | 4 }
  SimplifiedLayerNormalization: { axis: number; epsilon: number }
  /** SimplifiedLayerNormalization of a sum, and the sum (the operation's fourth output: two are always left out). */
  SkipSimplifiedLayerNormalization: { epsilon: number }
  /** rotary_embedding_dim 0 rotates whole heads, whose width the tables tell; num_heads is then 0, too. */
  RotaryEmbedding: { interleaved: 0 | 1; num_heads: number; rotary_embedding_dim: number }
}

export type Op = keyof OpAttributes

interface OpSpec<K extends Op> {
  /** '' is ai.onnx. */
  readonly domain: '' | 'com.microsoft'
  /** Types of the outputs, in order; throws when the inputs cannot be combined. */
  readonly infer: (inputs: readonly Value[], attributes: OpAttributes[K]) => ResultType[]
  /** Attributes that only our shape inference knows and that are not written into the file. */
  readonly internal?: readonly (keyof OpAttributes[K])[]
  /** Places of outputs that are always left out of the file. */
  readonly leftOut?: readonly number[]
}

const like = (inputs: readonly Value[]): ResultType[] => [
  { dtype: inputs[0]!.dtype, shape: inputs[0]!.shape },
]
const shaped = (inputs: readonly Value[], { shape }: { shape: Shape }): ResultType[] => [
  { dtype: inputs[0]!.dtype, shape },
]

/** Domain and shape rule of every operation. */
export const opSpecs: { readonly [K in Op]: OpSpec<K> } = {
  Add: { domain: '', infer: inferBroadcast },
  Sub: { domain: '', infer: inferBroadcast },
  Mul: { domain: '', infer: inferBroadcast },
  Div: { domain: '', infer: inferBroadcast },
  Neg: { domain: '', infer: like },
  Exp: { domain: '', infer: like },
  Log: { domain: '', infer: like },
  Relu: { domain: '', infer: like },
  Sign: { domain: '', infer: like },
  Sqrt: { domain: '', infer: like },
  Identity: { domain: '', infer: like },
  Sigmoid: { domain: '', infer: like },
  Softplus: { domain: '', infer: like },
  Tanh: { domain: '', infer: like },
  Gelu: { domain: '', infer: like },
  QuickGelu: { domain: 'com.microsoft', infer: like },
  Softmax: { domain: '', infer: like },
  LogSoftmax: { domain: '', infer: like },
  Cast: { domain: '', infer: ([x], { to }) => [{ dtype: to, shape: x!.shape }] },
  DequantizeLinear: { domain: '', infer: ([codes]) => [{ dtype: 'float32', shape: codes!.shape }] },
  QuantizeLinear: { domain: '', infer: ([x, , zero]) => [{ dtype: zero!.dtype, shape: x!.shape }] },
  Reshape: { domain: '', infer: shaped, internal: ['shape'] },
  Expand: { domain: '', infer: shaped, internal: ['shape'] },
  Transpose: { domain: '', infer: inferTranspose },
  Concat: { domain: '', infer: inferConcat, internal: ['total'] },
  Range: { domain: '', infer: (_, { size }) => [{ dtype: 'int64', shape: [size] }], internal: ['size'] },
  Equal: { domain: '', infer: inferComparison },
  GreaterOrEqual: { domain: '', infer: inferComparison },
  TopK: { domain: '', infer: inferTopK, internal: ['k'] },
  ArgMax: {
    domain: '',
    infer: ([x], { axis, keepdims }) => [
      { dtype: 'int64', shape: inferReduce([x!], { axes: [axis], keepdims })[0]!.shape },
    ],
  },
  Shape: { domain: '', infer: (_, { start, end }) => [{ dtype: 'int64', shape: [end - start] }] },
  ConstantOfShape: {
    domain: '',
    infer: (_, { shape }) => [{ dtype: 'float32', shape }],
    internal: ['shape'],
  },
  Gather: { domain: '', infer: inferGather },
  GatherElements: {
    domain: '',
    infer: ([data, indices]) => [{ dtype: data!.dtype, shape: indices!.shape }],
  },
  SoftmaxCrossEntropyLoss: {
    domain: '',
    infer: ([logits, labels]) => [
      { dtype: logits!.dtype, shape: labels!.shape },
      { dtype: logits!.dtype, shape: logits!.shape },
    ],
  },
  ScatterElements: { domain: '', infer: like },
  ScatterND: { domain: '', infer: like },
  Slice: { domain: '', infer: shaped, internal: ['shape'] },
  Split: {
    domain: '',
    infer: ([x], { axis, sizes }) =>
      sizes.map((size) => ({
        dtype: x!.dtype,
        shape: x!.shape.map((dim, index) => (index === axis ? size : dim)),
      })),
    internal: ['sizes'],
  },
  ReduceSum: { domain: '', infer: inferReduce, internal: ['axes'] },
  ReduceMean: { domain: '', infer: inferReduce, internal: ['axes'] },
  ReduceMax: { domain: '', infer: inferReduce, internal: ['axes'] },
  Gemm: { domain: '', infer: inferGemm },
  MatMul: { domain: '', infer: (inputs) => inferMatMul(inputs, { transA: 0, transB: 0 }) },
  FusedMatMul: { domain: 'com.microsoft', infer: inferMatMul },
  MatMulInteger: {
    domain: '',
    infer: ([a, b]) => [{ dtype: 'int32', shape: [a!.shape[0]!, b!.shape[1]!] }],
  },
  MatMulNBits: {
    domain: 'com.microsoft',
    infer: ([x], { N }) => [{ dtype: 'float32', shape: [...x!.shape.slice(0, -1), N] }],
  },
  SimplifiedLayerNormalization: {
    domain: '',
    infer: ([x]) => [
      { dtype: x!.dtype, shape: x!.shape },
      { dtype: 'float32', shape: [...x!.shape.slice(0, -1), 1] },
    ],
  },
  SkipSimplifiedLayerNormalization: {
    domain: 'com.microsoft',
    infer: (inputs) => [...like(inputs), ...like(inputs)],
    leftOut: [1, 2],
  },
  RotaryEmbedding: { domain: 'com.microsoft', infer: like },
}
