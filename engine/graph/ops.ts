import { EngineError } from '../errors.ts'
import type { DType } from '../tensor.ts'
import {
  inferBroadcast,
  inferGather,
  inferGemm,
  inferMatMul,
  inferReduce,
  inferTranspose,
} from './shape-rules.ts'
import { type Dim, formatShape, type ResultType, type Shape, type Value } from './values.ts'

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
  Sigmoid: None
  QuickGelu: { alpha: number }
  Softmax: { axis: number }
  LogSoftmax: { axis: number }
  Cast: { to: DType }
  /** allowzero 1: a 0 in the fed shape is an empty axis; 0: it copies the input's axis. */
  Reshape: { shape: Shape; allowzero: 0 | 1 }
  Expand: { shape: Shape }
  Transpose: { perm: readonly number[] }
  Concat: { axis: number }
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
  Gemm: { transA: 0 | 1; transB: 0 | 1; alpha: number }
  MatMul: None
  FusedMatMul: { transA: 0 | 1; transB: 0 | 1; alpha: number }
  SimplifiedLayerNormalization: { axis: number; epsilon: number }
  RotaryEmbedding: { interleaved: 0 | 1 }
}

export type Op = keyof OpAttributes

interface OpSpec<K extends Op> {
  /** '' is ai.onnx. */
  readonly domain: '' | 'com.microsoft'
  /** Types of the outputs, in order; throws when the inputs cannot be combined. */
  readonly infer: (inputs: readonly Value[], attributes: OpAttributes[K]) => ResultType[]
  /** Attributes that only our shape inference knows and that are not written into the file. */
  readonly internal?: readonly (keyof OpAttributes[K])[]
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
  Sigmoid: { domain: '', infer: like },
  QuickGelu: { domain: 'com.microsoft', infer: like },
  Softmax: { domain: '', infer: like },
  LogSoftmax: { domain: '', infer: like },
  Cast: { domain: '', infer: ([x], { to }) => [{ dtype: to, shape: x!.shape }] },
  Reshape: { domain: '', infer: shaped, internal: ['shape'] },
  Expand: { domain: '', infer: shaped, internal: ['shape'] },
  Transpose: { domain: '', infer: inferTranspose },
  Concat: { domain: '', infer: inferConcat },
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
  Gemm: { domain: '', infer: inferGemm },
  MatMul: { domain: '', infer: (inputs) => inferMatMul(inputs, { transA: 0, transB: 0 }) },
  FusedMatMul: { domain: 'com.microsoft', infer: inferMatMul },
  SimplifiedLayerNormalization: {
    domain: '',
    infer: ([x]) => [
      { dtype: x!.dtype, shape: x!.shape },
      { dtype: 'float32', shape: [...x!.shape.slice(0, -1), 1] },
    ],
  },
  RotaryEmbedding: { domain: 'com.microsoft', infer: like },
}

function inferConcat(inputs: readonly Value[], { axis }: { axis: number }): ResultType[] {
  const first = inputs[0]!
  const sizes = inputs.map((input) => input.shape[axis]!)
  const total = sizes.every((size) => typeof size === 'number')
    ? sizes.reduce((sum, size) => sum + size, 0)
    : sizes.join('+')
  for (const input of inputs) {
    if (input.shape.length !== first.shape.length) {
      throw new EngineError(
        'internal',
        'shape_mismatch',
        `Concat: ranks differ: ${inputs.map((value) => formatShape(value.shape)).join(', ')}`,
      )
    }
  }
  return [{ dtype: first.dtype, shape: first.shape.map((dim, index) => (index === axis ? total : dim)) }]
}
