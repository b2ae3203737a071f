import { GraphBuilder } from '../../../engine/graph/builder.ts'
import type { Graph } from '../../../engine/graph/graph.ts'
import type { Op } from '../../../engine/graph/ops.ts'
import type { Value } from '../../../engine/graph/values.ts'
import { elementCount, floatTensor, intTensor, type Tensor } from '../../../engine/tensor.ts'
import { float32ToBfloat16, float32ToFloat16 } from '../../../engine/weights/dtypes.ts'

/** One operation on inputs of the types and ranks in which graphs hold it. */
export interface OpCase {
  readonly title: string
  readonly graph: Graph
  readonly feeds: Readonly<Record<string, Tensor>>
}

/** What a case's graph is made with: every input is fed with numbers of its own. */
export class CaseBuilder {
  readonly g = new GraphBuilder()
  readonly feeds: Record<string, Tensor> = {}

  /** Numbers between `low` and `high` that repeat at no short distance. */
  float = (shape: readonly number[], low = -2, high = 2): Value =>
    this.#input('float32', shape, floatTensor(wave(elementCount(shape), low, high), shape))

  /** 0, 1, …, below - 1 in turn, in steps that visit all of them. */
  int(shape: readonly number[], below: number): Value {
    const data = BigInt64Array.from({ length: elementCount(shape) }, (_, i) => BigInt((i * 7 + 3) % below))
    return this.#input('int64', shape, intTensor(data, shape))
  }

  #input(dtype: 'float32' | 'int64', shape: readonly number[], tensor: Tensor): Value {
    const name = `input_${Object.keys(this.feeds).length}`
    this.feeds[name] = tensor
    return this.g.input(name, dtype, shape)
  }
}

function wave(length: number, low: number, high: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => low + (high - low) * (0.5 + 0.5 * Math.sin(1.7 * i + 0.3)))
}

function bytes(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 37 + 11) % 256)
}

type Build = (c: CaseBuilder) => readonly Value[] | Value
const flags = [0, 1] as const
const transposed = (shape: readonly number[], swap: 0 | 1) =>
  swap ? [...shape.slice(0, -2), shape.at(-1)!, shape.at(-2)!] : shape
const binary = (op: 'Add' | 'Sub' | 'Mul' | 'Div', int = false): Record<string, Build> => ({
  'of equal shapes': (c) => c.g[op](c.float([3, 8]), c.float([3, 8], 0.5, 2)),
  'with a row': (c) => c.g[op](c.float([2, 3, 8]), c.float([8], 0.5, 2)),
  'with a column': (c) => c.g[op](c.float([3, 8]), c.float([3, 1], 0.5, 2)),
  'with a number': (c) => c.g[op](c.g.scalar(1.5), c.float([3, 8], 0.5, 2)),
  'of rank 5': (c) => c.g[op](c.float([2, 3, 2, 4, 4]), c.float([1, 1, 1, 4, 4], 0.5, 2)),
  ...(int ? { 'of int64': (c: CaseBuilder) => c.g[op](c.int([6], 50), c.g.ints([1, 2, 3, 4, 5, 6])) } : {}),
})
const unary = (
  build: (g: GraphBuilder, x: Value) => Value,
  low?: number,
  high?: number,
): Record<string, Build> => ({
  'of a matrix': (c) => build(c.g, c.float([3, 8], low, high)),
  'of a vector': (c) => build(c.g, c.float([5], low, high)),
})
const tables = (c: CaseBuilder, rows: number, half: number) =>
  [Math.cos, Math.sin].map((f) => c.g.constant('float32', [rows, half], wave(rows * half, 0, 3).map(f)))

/** Every operation, in the forms that differ for a kernel. */
const builds: { readonly [K in Op]: Readonly<Record<string, Build>> } = {
  Add: binary('Add', true),
  Sub: binary('Sub', true),
  Mul: binary('Mul', true),
  Div: binary('Div', true),
  Neg: unary((g, x) => g.Neg(x)),
  Exp: unary((g, x) => g.Exp(x)),
  Log: unary((g, x) => g.Log(x), 0.1, 9),
  Relu: unary((g, x) => g.Relu(x)),
  Sign: unary((g, x) => g.Sign(g.Relu(x))),
  Sqrt: unary((g, x) => g.Sqrt(x), 0, 9),
  Identity: unary((g, x) => g.Mul(g.Detach(x), x)),
  Sigmoid: unary((g, x) => g.Sigmoid(x), -30, 30),
  Softplus: unary((g, x) => g.Softplus(x), -90, 90),
  Tanh: unary((g, x) => g.Tanh(x), -9, 9),
  Gelu: unary((g, x) => g.Gelu(x), -9, 9),
  QuickGelu: {
    'of SiLU': (c) => c.g.QuickGelu(c.float([3, 8], -9, 9), 1),
    'of another alpha': (c) => c.g.QuickGelu(c.float([3, 8], -9, 9), 1.702),
  },
  Softmax: {
    'of a matrix': (c) => c.g.Softmax(c.float([4, 320], -20, 20)),
    'of rank 4, with masked places': (c) =>
      c.g.Softmax(c.g.Mul(c.g.Relu(c.float([2, 2, 4, 9])), c.g.scalar(-1e30))),
  },
  LogSoftmax: { 'of a matrix': (c) => c.g.LogSoftmax(c.float([4, 320], -20, 20)) },
  SoftmaxCrossEntropyLoss: {
    'of a matrix': (c) => c.g.SoftmaxCrossEntropyLoss(c.float([4, 320], -20, 20), c.int([4], 320)),
  },
  Cast: {
    'bfloat16 to float32': (c) =>
      c.g.Cast(c.g.constant('bfloat16', [4, 8], float32ToBfloat16(wave(32, -2, 2))), 'float32'),
    'float16 to float32': (c) =>
      c.g.Cast(c.g.constant('float16', [4, 8], float32ToFloat16(wave(32, -2, 2))), 'float32'),
    'float32 to float16': (c) => c.g.Cast(c.g.Cast(c.float([4, 8]), 'float16'), 'float32'),
    'bool to float32': (c) => c.g.Cast(c.g.GreaterOrEqual(c.float([6]), c.g.scalar(0.5)), 'float32'),
    'bool to int64': (c) => c.g.Cast(c.g.GreaterOrEqual(c.float([6]), c.g.scalar(0.5)), 'int64'),
    'int64 to float32': (c) => c.g.Cast(c.int([6], 9), 'float32'),
    'float32 to int32': (c) => c.g.Gather(c.float([8, 2]), c.g.Cast(c.float([6], 0, 7), 'int32')),
    'uint8 to int32': (c) =>
      c.g.Gather(c.float([256, 2]), c.g.Cast(c.g.constant('uint8', [40], bytes(40)), 'int32')),
  },
  DequantizeLinear: {
    'of uint8': (c) =>
      c.g.DequantizeLinear(
        c.g.constant('uint8', [4, 64], bytes(256)),
        c.float([4, 2], 0.1, 1),
        c.g.constant('uint8', [4, 2], bytes(8)),
        32,
      ),
    'of uint4': (c) =>
      c.g.DequantizeLinear(
        c.g.constant('uint4', [4, 64], bytes(128)),
        c.float([4, 2], 0.1, 1),
        c.g.constant('uint4', [4, 2], bytes(4)),
        32,
      ),
    'of uint8 in rows': (c) => {
      const codes = c.g.constant('uint8', [8, 32], bytes(256))
      const zeros = c.g.constant('uint8', [8], bytes(8))
      const byRow = { axis: 0, block_size: 0 }
      return c.g.emit('DequantizeLinear', [codes, c.float([8], 0.1, 1), zeros], byRow)
    },
    'of uint8 with a shorter block at the end': (c) =>
      c.g.DequantizeLinear(
        c.g.constant('uint8', [4, 80], bytes(320)),
        c.float([4, 3], 0.1, 1),
        c.g.constant('uint8', [4, 3], bytes(12)),
        32,
      ),
  },
  QuantizeLinear: {
    'to uint8': (c) =>
      c.g.QuantizeLinear(c.float([4, 8]), c.g.scalar(0.1), c.g.constant('uint8', [], Uint8Array.of(90))),
    'to int8': (c) =>
      c.g.QuantizeLinear(c.float([4, 8]), c.g.scalar(0.1), c.g.constant('int8', [], new Int8Array(1))),
  },
  Reshape: {
    'of float32': (c) => c.g.Neg(c.g.Reshape(c.float([3, 8]), [2, 12])),
    'of int64': (c) => c.g.Gather(c.float([6, 4]), c.g.Reshape(c.int([2, 3], 6), [6])),
  },
  Expand: {
    'of a column': (c) => c.g.Expand(c.float([3, 1]), [3, 5]),
    'of rank 5': (c) => c.g.Expand(c.float([2, 1, 1, 1, 6]), [2, 1, 3, 4, 6]),
  },
  Transpose: {
    'of rank 2': (c) => c.g.Transpose(c.float([3, 8]), [1, 0]),
    'of rank 4': (c) => c.g.Transpose(c.float([2, 3, 4, 5]), [0, 2, 1, 3]),
    'of rank 5': (c) => c.g.Transpose(c.float([2, 3, 4, 2, 5]), [0, 2, 3, 1, 4]),
  },
  Concat: {
    'along rows': (c) => c.g.Concat([c.float([2, 3]), c.float([4, 3])], 0),
    'along the last axis': (c) => c.g.Concat([c.float([2, 2, 3, 4]), c.float([2, 2, 3, 1])], 3),
    'of 40 parts': (c) =>
      c.g.Concat(
        Array.from({ length: 40 }, () => c.float([2, 3])),
        0,
      ),
    'of rank 5': (c) => c.g.Concat([c.float([2, 1, 2, 3, 4]), c.float([2, 1, 2, 3, 2])], 4),
    'of uint8': (c) => {
      const part = (rows: number) => c.g.constant('uint8', [rows, 4], bytes(rows * 4))
      return c.g.Gather(c.float([256, 2]), c.g.Cast(c.g.Concat([part(2), part(3)], 0), 'int32'))
    },
    'of int64': (c) => c.g.Concat([c.int([2], 9), c.int([3], 9)], 0),
  },
  Range: { 'of int64': (c) => c.g.Range(6) },
  Equal: {
    'of float32': (c) => c.g.Equal(c.g.Relu(c.float([3, 8])), c.g.scalar(0)),
    'of int64': (c) => c.g.Equal(c.int([4, 1], 5), c.g.ints([0, 1, 2, 3, 4])),
    'of the largest with labels': (c) =>
      c.g.Cast(c.g.Equal(c.g.ArgMax(c.float([5, 7]), 1), c.int([5], 7)), 'float32'),
  },
  GreaterOrEqual: {
    'of float32': (c) => c.g.GreaterOrEqual(c.float([3, 8]), c.g.scalar(0.5)),
    'of int64': (c) => c.g.GreaterOrEqual(c.int([1, 1, 1, 4, 1], 5), c.g.ints([3])),
  },
  TopK: {
    'of float32': (c) => c.g.TopK(c.float([5, 8]), 2, 1),
    'of int64, smallest first': (c) => c.g.TopK(c.int([20], 4), 20, 0, 0),
  },
  ArgMax: { 'of a matrix': (c) => c.g.ArgMax(c.float([4, 320]), 1) },
  MatMulInteger: {
    'of uint8 and int8': (c) => {
      const zero = c.g.constant('uint8', [], Uint8Array.of(90))
      const left = c.g.constant('uint8', [4, 64], bytes(256))
      const right = c.g.QuantizeLinear(
        c.float([64, 8]),
        c.g.scalar(0.1),
        c.g.constant('int8', [], new Int8Array(1)),
      )
      return c.g.MatMulInteger(left, right, zero)
    },
  },
  MatMulNBits: Object.fromEntries(
    ([4, 8] as const).flatMap((bits) =>
      (
        [
          [0, 1],
          [4, 7],
        ] as const
      ).map(([level, rows]) => [
        `of ${bits} bits at level ${level}, ${rows} rows`,
        (c: CaseBuilder) =>
          c.g.MatMulNBits(
            c.float([rows, 64]),
            c.g.constant('uint8', [16, 2, (32 * bits) / 8], bytes(128 * bits)),
            c.g.constant('float32', [16, 2], wave(32, 0.01, 0.1)),
            c.g.constant('uint8', [16, (2 * bits) / 8], bytes(4 * bits)),
            { K: 64, N: 16, bits, block_size: 32, accuracy_level: level },
          ),
      ]),
    ),
  ),
  Shape: {
    'of float32': (c) => {
      const x = c.float([3, 8])
      c.g.bindDim('rows', x, 0)
      return c.g.dimValue('rows')
    },
  },
  ConstantOfShape: { zeros: (c) => c.g.Add(c.g.Zeros([3, 8]), c.float([3, 8])) },
  Gather: {
    'of rows': (c) => c.g.Gather(c.float([6, 8]), c.int([4], 6)),
    'of columns': (c) => c.g.Gather(c.float([6, 8]), c.int([5], 8), 1),
    'of bfloat16': (c) =>
      c.g.Cast(
        c.g.Gather(c.g.constant('bfloat16', [6, 8], float32ToBfloat16(wave(48, -2, 2))), c.int([4], 6)),
        'float32',
      ),
    'of float16': (c) =>
      c.g.Cast(
        c.g.Gather(c.g.constant('float16', [6, 8], float32ToFloat16(wave(48, -2, 2))), c.int([4], 6)),
        'float32',
      ),
    'by int32': (c) => c.g.Gather(c.float([256, 2]), c.g.constant('int32', [3], Int32Array.of(2, 255, 0))),
    'of int64': (c) => c.g.Gather(c.int([9], 9), c.int([4], 9)),
  },
  GatherElements: { 'of columns': (c) => c.g.GatherElements(c.float([4, 8]), c.int([4, 1], 8), 1) },
  ScatterElements: {
    'adding to columns': (c) =>
      c.g.ScatterElements(c.float([4, 8]), c.int([4, 1], 8), c.float([4, 1]), { axis: 1, reduction: 'add' }),
    'adding at repeated places': (c) =>
      c.g.ScatterElements(c.float([4, 8]), c.int([4, 6], 3), c.float([4, 6]), { axis: 1, reduction: 'add' }),
  },
  ScatterND: {
    'adding rows, some twice': (c) =>
      c.g.ScatterND(c.g.Zeros([5, 8]), c.int([9, 1], 5), c.float([9, 8]), 'add'),
  },
  Slice: {
    'of rows': (c) => c.g.Slice(c.float([6, 8]), 0, 2, 3),
    'of columns': (c) => c.g.Slice(c.float([6, 8]), 1, 0, 5),
  },
  Split: {
    'of columns': (c) => c.g.Split(c.float([3, 8]), 1, [2, 5, 1]),
    'of rows': (c) => c.g.Split(c.float([6, 8]), 0, [4, 2]),
    'of rank 4': (c) => c.g.Split(c.float([2, 2, 3, 8]), 3, [5, 3]),
    'of 40 parts': (c) => c.g.Split(c.float([80, 3]), 0, new Array<number>(40).fill(2)),
    'of int64': (c) => c.g.Split(c.int([6], 9), 0, [4, 2]),
  },
  ReduceSum: {
    'of the last axis': (c) => c.g.ReduceSum(c.float([3, 8]), [-1], 1),
    'of rows': (c) => c.g.ReduceSum(c.float([30, 8]), [0], 1),
    'of everything': (c) => c.g.ReduceSum(c.float([30]), [0], 0),
    'of rank 4': (c) => c.g.ReduceSum(c.float([2, 3, 4, 8]), [0, 1, 2], 1),
    'of a middle axis': (c) => c.g.ReduceSum(c.float([3, 4, 8]), [1], 0),
    'of int64': (c) => c.g.ReduceSum(c.int([3, 8], 9), [0], 0),
  },
  ReduceMax: { 'of the last axis': (c) => c.g.ReduceMax(c.float([3, 320]), [-1], 1) },
  ReduceMean: {
    'of the last axis': (c) => c.g.ReduceMean(c.float([3, 8]), [-1], 1),
    'of rank 4': (c) => c.g.ReduceMean(c.float([2, 3, 4, 8]), [-1], 1),
  },
  Gemm: Object.fromEntries(
    (
      [
        [0, 0, undefined],
        [0, 0, [3, 8]],
        [0, 1, undefined],
        [0, 1, [8]],
        [1, 0, undefined],
        [1, 1, undefined],
      ] as const
    ).map(([transA, transB, addend]) => [
      `transA=${transA} transB=${transB} ${addend ? `with C [${addend}]` : 'without C'}`,
      (c: CaseBuilder) =>
        c.g.Gemm(
          c.float(transposed([3, 8], transA)),
          c.float(transposed([8, 8], transB)),
          { transA, transB, alpha: 0.5 },
          addend && c.float(addend),
        ),
    ]),
  ),
  MatMul: {
    'of matrices': (c) => c.g.MatMul(c.float([3, 8]), c.float([8, 8])),
    'of rank 4': (c) => c.g.MatMul(c.float([2, 3, 3, 8]), c.float([2, 3, 8, 8])),
  },
  FusedMatMul: Object.fromEntries([
    ...flags.flatMap((transA) =>
      flags.map((transB) => [
        `transA=${transA} transB=${transB}`,
        (c: CaseBuilder) =>
          c.g.FusedMatMul(
            c.float(transposed([2, 3, 3, 8], transA)),
            c.float(transposed([2, 3, 8, 8], transB)),
            {
              transA,
              transB,
              alpha: 0.25,
            },
          ),
      ]),
    ),
    [
      'of heads that share keys',
      (c: CaseBuilder) => c.g.FusedMatMul(c.float([2, 3, 3, 1, 8]), c.float([2, 3, 1, 5, 8]), { transB: 1 }),
    ],
  ]),
  SimplifiedLayerNormalization: {
    'of a matrix': (c) => c.g.SimplifiedLayerNormalization(c.float([6, 36]), c.float([36]), 1e-5),
    'of rank 4': (c) => c.g.SimplifiedLayerNormalization(c.float([2, 3, 4, 16]), c.float([16]), 1e-5),
    'of the result alone': (c) => c.g.SimplifiedLayerNormalization(c.float([6, 36]), c.float([36]), 1e-5)[0],
  },
  SkipSimplifiedLayerNormalization: {
    'of matrices': (c) =>
      c.g.SkipSimplifiedLayerNormalization(c.float([6, 36]), c.float([6, 36]), c.float([36]), 1e-5),
  },
  RotaryEmbedding: Object.fromEntries(
    flags.flatMap((interleaved) =>
      [undefined, { heads: 2, rotated: 8 }].map((partial) => [
        `of ${partial ? 'parts of heads' : 'whole heads'}, interleaved ${interleaved}`,
        (c: CaseBuilder) => {
          const [cos, sin] = tables(c, 9, 4)
          const options = { interleaved, ...(partial ? { partial } : {}) }
          const positions = c.int([2, 3], 9)
          return [[2, 3, partial ? 32 : 16], ...(partial ? [] : [[2, 4, 3, 8]])].map((shape) =>
            c.g.RotaryEmbedding(c.float(shape), positions, cos!, sin!, options),
          )
        },
      ]),
    ),
  ),
}

/** All cases of all operations. */
export const opCases: ReadonlyMap<Op, readonly OpCase[]> = new Map(
  (Object.keys(builds) as Op[]).map((op) => [
    op,
    Object.entries(builds[op]).map(([form, build]) => {
      const c = new CaseBuilder()
      const outputs = [build(c)].flat()
      return { title: `${op} ${form}`, graph: c.g.finish(outputs), feeds: c.feeds }
    }),
  ]),
)
