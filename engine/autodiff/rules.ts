import type { GraphBuilder } from '../graph/builder.ts'
import type { Op, OpAttributes } from '../graph/ops.ts'
import type { Dim, Value } from '../graph/values.ts'

/** What a rule sees: the node, the gradient of its first output, and which inputs want a gradient. */
export interface GradContext<K extends Op> {
  readonly g: GraphBuilder
  readonly inputs: readonly Value[]
  readonly outputs: readonly Value[]
  readonly attributes: OpAttributes[K]
  /** Gradient of the loss by the first output; further outputs are by-products and carry none, except Split's. */
  readonly dy: Value
  /** Gradient by each output, or null where none reached it; for the operations in `manyOutputs`. */
  readonly dys: readonly (Value | null)[]
  readonly needs: readonly boolean[]
}

/**
 * Returns the gradient by each input, or null where none is needed. A gradient may keep the broadcast shape: the walker
 * sums it down to the input's.
 */
export type GradRule<K extends Op> = (context: GradContext<K>) => readonly (Value | null)[]

/** The output does not depend smoothly on the inputs (shapes, constants): the gradient is zero and the walk ends. */
export const NO_GRAD = Symbol('no gradient')
/** A gradient exists but nothing here needs it yet: reaching it is an error, never a silent zero. */
export const NOT_DIFFERENTIABLE = Symbol('not differentiable')

/** Operations whose every output carries a gradient. Elsewhere a gradient at a further output is an error. */
export const manyOutputs: ReadonlySet<Op> = new Set(['Split'])

/** The derivative of every operation. Never partial: an operation without an entry does not compile. */
export const rules: { readonly [K in Op]: GradRule<K> | typeof NO_GRAD | typeof NOT_DIFFERENTIABLE } = {
  // y = a + b  →  da = dy, db = dy
  Add: ({ dy }) => [dy, dy],
  // y = a - b  →  da = dy, db = -dy
  Sub: ({ g, dy, needs }) => [dy, needs[1] ? g.Neg(dy) : null],
  // y = a·b  →  da = dy·b, db = dy·a
  Mul: ({ g, dy, inputs: [a, b], needs }) => [
    needs[0] ? g.Mul(dy, b!) : null,
    needs[1] ? g.Mul(dy, a!) : null,
  ],
  // y = a/b  →  da = dy/b, db = -dy·y/b
  Div: ({ g, dy, inputs: [, b], outputs: [y], needs }) => {
    const ratio = g.Div(dy, b!)
    return [ratio, needs[1] ? g.Neg(g.Mul(ratio, y!)) : null]
  },
  // y = -x  →  dx = -dy
  Neg: ({ g, dy }) => [g.Neg(dy)],
  // y = exp(x)  →  dx = dy·y
  Exp: ({ g, dy, outputs: [y] }) => [g.Mul(dy, y!)],
  // y = log(x)  →  dx = dy/x
  Log: ({ g, dy, inputs: [x] }) => [g.Div(dy, x!)],
  // y = max(x, 0)  →  dx = dy where y > 0
  Relu: ({ g, dy, outputs: [y] }) => [g.Mul(dy, g.Sign(y!))],
  Sign: NO_GRAD,
  // y = log(1 + exp(x))  →  dx = dy·σ(x)
  Softplus: ({ g, dy, inputs: [x] }) => [g.Mul(dy, g.Sigmoid(x!))],
  // y = √x  →  dx = dy / 2y
  Sqrt: ({ g, dy, outputs: [y] }) => [g.Div(g.Mul(dy, g.scalar(0.5)), y!)],
  // only Detach emits it
  Identity: NO_GRAD,
  // y = σ(x)  →  dx = dy·y·(1 - y)
  Sigmoid: ({ g, dy, outputs: [y] }) => [g.Mul(dy, g.Mul(y!, g.Sub(g.scalar(1), y!)))],
  // y = tanh(x)  →  dx = dy·(1 - y²)
  Tanh: ({ g, dy, outputs: [y] }) => [g.Mul(dy, g.Sub(g.scalar(1), g.Mul(y!, y!)))],
  // y = x·(1 + t)/2 with t = tanh(u), u = c·(x + a·x³), c = √(2/π), a = 0.044715
  //   →  dx = dy·((1 + t)/2 + x·(1 - t²)/2·c·(1 + 3a·x²))
  Gelu: ({ g, dy, inputs: [x] }) => {
    const [c, a, half] = [Math.sqrt(2 / Math.PI), 0.044715, g.scalar(0.5)]
    const square = g.Mul(x!, x!)
    const polynomial = (factor: number) => g.Add(g.Mul(square, g.scalar(factor * c * a)), g.scalar(c))
    const t = g.Tanh(g.Mul(x!, polynomial(1)))
    const bell = g.Mul(g.Sub(g.scalar(1), g.Mul(t, t)), g.Mul(x!, polynomial(3)))
    return [g.Mul(dy, g.Mul(half, g.Add(g.Add(t, bell), g.scalar(1))))]
  },
  // y = x·σ(αx)  →  dx = dy·(s + α·y·(1 - s)) with s = σ(αx)
  QuickGelu: ({ g, dy, inputs: [x], outputs: [y], attributes: { alpha } }) => {
    const scaled = alpha === 1 ? x! : g.Mul(x!, g.scalar(alpha))
    const s = g.Sigmoid(scaled)
    const slope = g.Mul(y!, g.Sub(g.scalar(1), s))
    return [g.Mul(dy, g.Add(s, alpha === 1 ? slope : g.Mul(slope, g.scalar(alpha))))]
  },
  // y = softmax(x)  →  dx = y·(dy - Σ dy·y)
  Softmax: ({ g, dy, outputs: [y], attributes: { axis } }) => {
    const total = g.ReduceSum(g.Mul(dy, y!), [axis], 1)
    return [g.Mul(y!, g.Sub(dy, total))]
  },
  // y = log softmax(x)  →  dx = dy - exp(y)·Σ dy
  LogSoftmax: ({ g, dy, outputs: [y], attributes: { axis } }) => [
    g.Sub(dy, g.Mul(g.Exp(y!), g.ReduceSum(dy, [axis], 1))),
  ],
  // l = -log softmax(x)[label]  →  dx = dl·(softmax(x) - onehot(label))
  SoftmaxCrossEntropyLoss: ({ g, dy, inputs: [logits, labels], outputs: [, logProbabilities] }) => {
    const rows = logits!.shape[0]!
    const column = g.Reshape(labels!, [rows, 1])
    const minusOne = g.Expand(g.constant('float32', [1, 1], Float32Array.of(-1)), [rows, 1])
    const difference = g.ScatterElements(g.Exp(logProbabilities!), column, minusOne, {
      axis: 1,
      reduction: 'add',
    })
    return [g.Mul(difference, g.Reshape(dy, [rows, 1])), null]
  },
  // only over frozen weights
  DequantizeLinear: NO_GRAD,
  QuantizeLinear: NO_GRAD,
  // y = x in another type  →  dx = dy in x's
  Cast: ({ g, dy, inputs: [x] }) => [g.Cast(dy, x!.dtype)],
  // the same elements  →  dx = dy in x's shape
  Reshape: ({ g, dy, inputs: [x] }) => [g.Reshape(dy, x!.shape), null],
  // the walker sums over the expanded axes
  Expand: ({ dy }) => [dy, null],
  // y = x with its axes in the order perm  →  dx = dy in the inverse order
  Transpose: ({ g, dy, attributes: { perm } }) => [
    g.Transpose(
      dy,
      perm.map((_, axis) => perm.indexOf(axis)),
    ),
  ],
  // y = the parts, one after another  →  each part's share of dy
  Concat: ({ g, dy, inputs, attributes: { axis } }) =>
    g.Split(
      dy,
      axis,
      inputs.map((input) => input.shape[axis]!),
    ),
  Range: NO_GRAD,
  Equal: NO_GRAD,
  GreaterOrEqual: NO_GRAD,
  // y = x[…indices…] along an axis  →  dx = zeros with dy at the indices
  TopK: ({ g, dy, inputs: [x], outputs: [, indices], attributes: { axis } }) => [
    g.ScatterElements(g.Zeros(x!.shape), indices!, dy, { axis, reduction: 'add' }),
    null,
  ],
  ArgMax: NO_GRAD,
  MatMulNBits: NOT_DIFFERENTIABLE,
  MatMulInteger: NO_GRAD,
  SkipSimplifiedLayerNormalization: NOT_DIFFERENTIABLE,
  Shape: NO_GRAD,
  ConstantOfShape: NO_GRAD,
  // y = data[indices] along the first axis  →  d(data) = zeros with dy added at the indices
  Gather: ({ g, dy, inputs: [data, indices], attributes: { axis } }) => {
    if (axis !== 0) throw new Error(`Gather along axis ${axis} has no gradient yet; use axis 0`)
    const places = g.Reshape(indices!, [...indices!.shape, 1])
    return [g.ScatterND(g.Zeros(data!.shape), places, dy, 'add'), null]
  },
  // y = data[…indices…] along an axis  →  d(data) = zeros with dy added at the indices
  GatherElements: ({ g, dy, inputs: [data, indices], attributes: { axis } }) => [
    g.ScatterElements(g.Zeros(data!.shape), indices!, dy, { axis, reduction: 'add' }),
    null,
  ],
  ScatterElements: NOT_DIFFERENTIABLE,
  ScatterND: NOT_DIFFERENTIABLE,
  Slice: NOT_DIFFERENTIABLE,
  // the inverse of Concat; a part that nothing reads has no gradient
  Split: ({ g, dys, inputs: [x], outputs, attributes: { axis } }) => [
    g.Concat(
      dys.map((dy, index) => dy ?? g.Zeros(outputs[index]!.shape)),
      axis,
      x!.shape[axis],
    ),
    null,
  ],
  // y = Σ x  →  dx = dy, repeated along the summed axes
  ReduceSum: ({ g, dy, inputs: [x], attributes: { axes } }) => [
    g.Expand(g.Reshape(dy, keptShape(x!, axes)), x!.shape),
    null,
  ],
  // y = Σ x / n  →  dx = dy / n, repeated along the summed axes
  ReduceMean: ({ g, dy, inputs: [x], attributes: { axes } }) => {
    const kept = g.Reshape(dy, keptShape(x!, axes))
    return [g.Expand(g.Mul(kept, g.scalar(1 / averagedCount(x!, axes))), x!.shape), null]
  },
  ReduceMax: NOT_DIFFERENTIABLE,
  // y = α·op(A)·op(B) + C  →  dA = α·dy·op(B)ᵀ, dB = α·op(A)ᵀ·dy (transposed back where op transposes), dC = dy
  Gemm: ({ g, dy, inputs: [a, b], attributes: { transA, transB, alpha }, needs }) => [
    needs[0] ? gradLeft(g.Gemm, dy, b!, transA, transB, alpha) : null,
    needs[1] ? gradRight(g.Gemm, dy, a!, transA, transB, alpha) : null,
    needs[2] ? dy : null,
  ],
  MatMul: ({ g, dy, inputs: [a, b], needs }) => [
    needs[0] ? gradLeft(g.FusedMatMul, dy, b!, 0, 0, 1) : null,
    needs[1] ? gradRight(g.FusedMatMul, dy, a!, 0, 0, 1) : null,
  ],
  FusedMatMul: ({ g, dy, inputs: [a, b], attributes: { transA, transB, alpha }, needs }) => [
    needs[0] ? gradLeft(g.FusedMatMul, dy, b!, transA, transB, alpha) : null,
    needs[1] ? gradRight(g.FusedMatMul, dy, a!, transA, transB, alpha) : null,
  ],
  // y = x·r·w with r = 1 / rms(x)  →  dw = Σ dy·x·r,  dx = r·(dy·w - x·r²·mean(dy·w·x))
  SimplifiedLayerNormalization: ({ g, dy, inputs: [x, w], outputs: [, r], needs }) => {
    const dyw = g.Mul(dy, w!)
    const mean = g.ReduceMean(g.Mul(dyw, x!), [-1], 1)
    const pull = g.Mul(x!, g.Mul(mean, g.Mul(r!, r!)))
    return [needs[0] ? g.Mul(g.Sub(dyw, pull), r!) : null, needs[1] ? g.Mul(dy, g.Mul(x!, r!)) : null]
  },
  // A rotation by θ is undone by -θ: the same operation with sin negated
  RotaryEmbedding: ({ g, dy, inputs: [, positions, cos, sin], attributes }) => [
    g.emit('RotaryEmbedding', [dy, positions!, cos!, g.Neg(sin!)], attributes),
    null,
    null,
    null,
  ],
}

type Product = (a: Value, b: Value, options: { transA?: 0 | 1; transB?: 0 | 1; alpha?: number }) => Value
type Flag = 0 | 1
const flip = (flag: Flag): Flag => (flag === 0 ? 1 : 0)

/** α·dy·op(B)ᵀ, transposed where op transposes A. */
function gradLeft(product: Product, dy: Value, b: Value, transA: Flag, transB: Flag, alpha: number): Value {
  return transA
    ? product(b, dy, { transA: transB, transB: 1, alpha })
    : product(dy, b, { transB: flip(transB), alpha })
}

/** α·op(A)ᵀ·dy, transposed where op transposes B. */
function gradRight(product: Product, dy: Value, a: Value, transA: Flag, transB: Flag, alpha: number): Value {
  return transB
    ? product(dy, a, { transA: 1, transB: transA, alpha })
    : product(a, dy, { transA: flip(transA), alpha })
}

/** Axes counted from the front. */
function reducedAxes(x: Value, axes: readonly number[]): Set<number> {
  const rank = x.shape.length
  return new Set(axes.map((axis) => (axis + rank) % rank))
}

/** x's shape with 1 in place of the reduced axes, as keepdims leaves it. */
function keptShape(x: Value, axes: readonly number[]): Dim[] {
  const reduced = reducedAxes(x, axes)
  return x.shape.map((dim, axis) => (reduced.has(axis) ? 1 : dim))
}

function averagedCount(x: Value, axes: readonly number[]): number {
  return [...reducedAxes(x, axes)].reduce((count, axis) => {
    const dim = x.shape[axis]!
    if (typeof dim !== 'number')
      throw new Error(`ReduceMean over the symbolic axis '${dim}' has no gradient yet`)
    return count * dim
  }, 1)
}
