import { describe, expect, it } from 'vitest'
import { NO_GRAD, NOT_DIFFERENTIABLE, rules } from '../../../engine/autodiff/rules.ts'
import type { GraphBuilder } from '../../../engine/graph/builder.ts'
import type { Op } from '../../../engine/graph/ops.ts'
import type { Value } from '../../../engine/graph/values.ts'
import { type GradCase, gradCheck } from './grad-check.ts'

const broadcastPairs: readonly (readonly [number[], number[]])[] = [
  [
    [3, 4],
    [3, 4],
  ],
  [[3, 4], [4]],
  [[4], [3, 4]],
  [
    [3, 1],
    [3, 4],
  ],
  [
    [3, 4],
    [3, 1],
  ],
  [
    [1, 4],
    [3, 1],
  ],
  [
    [2, 3, 4],
    [3, 1],
  ],
  [[2, 3, 4], []],
]

function binary(
  name: string,
  build: (g: GraphBuilder, a: Value, b: Value) => Value,
  range?: readonly [number, number],
): GradCase[] {
  return broadcastPairs.map(([a, b]) => ({
    title: `${name} [${a}] with [${b}]`,
    shapes: [a, b],
    build: (g, [x, y]) => build(g, x!, y!),
    ...(range ? { range } : {}),
  }))
}

const flags = [0, 1] as const
const transpositions = flags.flatMap((transA) => flags.map((transB) => ({ transA, transB })))
const swapped = (shape: number[], swap: 0 | 1) =>
  swap ? [...shape.slice(0, -2), shape.at(-1)!, shape.at(-2)!] : shape
const unary = (name: string, build: (g: GraphBuilder, x: Value) => Value, shape = [3, 5]): GradCase[] => [
  { title: `${name} [${shape}]`, shapes: [shape], build: (g, [x]) => build(g, x!) },
]
const indices = (g: GraphBuilder, values: number[], shape: number[]) =>
  g.constant('int64', shape, BigInt64Array.from(values, BigInt))

/** At least one finite-difference case for every operation that has a derivative. */
const cases: { readonly [K in Op]?: readonly GradCase[] } = {
  Add: binary('Add', (g, a, b) => g.Add(a, b)),
  Sub: binary('Sub', (g, a, b) => g.Sub(a, b)),
  Mul: binary('Mul', (g, a, b) => g.Mul(a, b)),
  Div: binary('Div', (g, a, b) => g.Div(a, b), [0.5, 2]),
  Neg: unary('Neg', (g, x) => g.Neg(x)),
  Exp: unary('Exp', (g, x) => g.Exp(x)),
  Log: [{ title: 'Log [3,5]', shapes: [[3, 5]], range: [0.5, 2], build: (g, [x]) => g.Log(x!) }],
  Relu: unary('Relu', (g, x) => g.Relu(x)),
  Sqrt: unary('Sqrt', (g, x) => g.Sqrt(g.Add(g.Mul(x, x), g.scalar(1)))),
  Sigmoid: unary('Sigmoid', (g, x) => g.Sigmoid(x)),
  Softplus: unary('Softplus', (g, x) => g.Softplus(x)),
  Tanh: unary('Tanh', (g, x) => g.Tanh(x)),
  Gelu: [[-1, 1] as const, [-4, 4] as const].flatMap((range) =>
    unary(`Gelu in [${range}]`, (g, x) => g.Gelu(x)).map((testCase) => ({ ...testCase, range })),
  ),
  QuickGelu: [1, 1.702].flatMap((alpha) => unary(`QuickGelu α=${alpha}`, (g, x) => g.QuickGelu(x, alpha))),
  Softmax: unary('Softmax', (g, x) => g.Softmax(x)),
  LogSoftmax: unary('LogSoftmax', (g, x) => g.LogSoftmax(x)),
  SoftmaxCrossEntropyLoss: unary('SoftmaxCrossEntropyLoss', (g, x) => {
    return g.SoftmaxCrossEntropyLoss(x, indices(g, [4, 0, 2], [3]))[0]
  }),
  Cast: unary('Cast to the same type', (g, x) => g.Mul(g.Cast(x, 'float32'), x)),
  Reshape: unary('Reshape', (g, x) => g.Mul(g.Reshape(x, [5, 3]), g.Reshape(x, [5, 3]))),
  Expand: unary('Expand', (g, x) => g.Expand(x, [4, 3, 5]), [3, 1]),
  Transpose: unary('Transpose', (g, x) => g.Transpose(x, [2, 0, 3, 1]), [2, 3, 4, 5]),
  Concat: [0, 1].map((axis) => ({
    title: `Concat along ${axis}`,
    shapes: [
      [2, 3],
      [axis === 0 ? 4 : 2, axis === 0 ? 3 : 4],
    ],
    build: (g, inputs) => g.Concat(inputs, axis),
  })),
  Split: [0, 1].flatMap((axis) => [
    ...unary(`Split along ${axis}, every part used`, (g, x) => {
      const [first, second] = g.Split(x, axis, axis === 0 ? [1, 2] : [2, 3])
      return axis === 0
        ? g.Mul(first!, second!)
        : g.FusedMatMul(first!, g.Mul(second!, second!), { transA: 1 })
    }),
    ...unary(
      `Split along ${axis}, one part unused`,
      (g, x) => g.Split(x, axis, axis === 0 ? [1, 2] : [2, 3])[1]!,
    ),
  ]),
  TopK: [0, 1].flatMap((axis) =>
    flags.flatMap((largest) =>
      unary(`TopK along ${axis}, largest ${largest}, of values too far apart to change places`, (g, x) => {
        const apart = Float32Array.from({ length: 15 }, (_, i) => 3 * ((7 * i) % 15))
        return g.TopK(g.Add(x, g.constant('float32', [3, 5], apart)), 2, axis, largest)[0]
      }),
    ),
  ),
  Gather: unary('Gather with a repeated row', (g, x) => g.Gather(x, indices(g, [2, 0, 2, 1], [4]))),
  GatherElements: unary('GatherElements with repeats', (g, x) =>
    g.GatherElements(x, indices(g, [1, 1, 0, 4, 3, 3], [3, 2]), 1),
  ),
  ReduceSum: [[0], [-1], [0, 2]].flatMap((axes) =>
    flags.flatMap((keep) =>
      unary(`ReduceSum ${axes} keep ${keep}`, (g, x) => g.ReduceSum(x, axes, keep), [2, 3, 4]),
    ),
  ),
  ReduceMean: [[0], [-1], [0, 2]].flatMap((axes) =>
    flags.flatMap((keep) =>
      unary(`ReduceMean ${axes} keep ${keep}`, (g, x) => g.ReduceMean(x, axes, keep), [2, 3, 4]),
    ),
  ),
  Gemm: transpositions.map(({ transA, transB }) => ({
    title: `Gemm transA=${transA} transB=${transB} α=0.5 with C`,
    shapes: [swapped([3, 4], transA), swapped([4, 5], transB), [3, 5]],
    build: (g, [a, b, c]) => g.Gemm(a!, b!, { transA, transB, alpha: 0.5 }, c!),
  })),
  MatMul: [
    {
      title: 'MatMul [2,3,4]·[4,5]',
      shapes: [
        [2, 3, 4],
        [4, 5],
      ],
      build: (g, [a, b]) => g.MatMul(a!, b!),
    },
    {
      title: 'MatMul [2,1,4,5]·[1,3,5,4]',
      shapes: [
        [2, 1, 4, 5],
        [1, 3, 5, 4],
      ],
      build: (g, [a, b]) => g.MatMul(a!, b!),
    },
  ],
  FusedMatMul: transpositions.map(({ transA, transB }) => ({
    title: `FusedMatMul transA=${transA} transB=${transB} α=0.5`,
    shapes: [swapped([2, 3, 4], transA), swapped([2, 4, 5], transB)],
    build: (g, [a, b]) => g.FusedMatMul(a!, b!, { transA, transB, alpha: 0.5 }),
  })),
  SimplifiedLayerNormalization: [
    {
      title: 'SimplifiedLayerNormalization [4,6]',
      shapes: [[4, 6], [6]],
      build: (g, [x, w]) => g.SimplifiedLayerNormalization(x!, w!, 1e-5)[0],
    },
  ],
  RotaryEmbedding: flags.flatMap((interleaved) =>
    [undefined, { heads: 2, rotated: 4 }].flatMap((partial) =>
      unary(
        `RotaryEmbedding ${partial ? 'of half of each head' : 'of whole heads'}, interleaved ${interleaved}`,
        (g, x) => {
          const angles = Float32Array.from({ length: 12 }, (_, i) => 0.3 * i)
          const table = (f: (angle: number) => number) => g.constant('float32', [6, 2], angles.map(f))
          const positions = indices(g, [0, 1, 2, 3, 4, 5], [2, 3])
          return g.RotaryEmbedding(x, positions, table(Math.cos), table(Math.sin), {
            interleaved,
            ...(partial ? { partial } : {}),
          })
        },
        [2, 3, partial ? 16 : 8],
      ),
    ),
  ),
}

describe('gradient table', () => {
  it('has a finite-difference case for every operation with a derivative', () => {
    const differentiable = Object.entries(rules)
      .filter(([, rule]) => rule !== NO_GRAD && rule !== NOT_DIFFERENTIABLE)
      .map(([op]) => op)
    expect(Object.keys(cases).sort()).toEqual(differentiable.sort())
  })

  for (const testCase of Object.values(cases).flat()) {
    it(`${testCase.title}: gradient matches finite differences`, async () => {
      const { numeric, analytic } = await gradCheck(testCase)
      expect(Math.abs(numeric)).toBeGreaterThan(1e-4)
      expect(Math.abs(analytic - numeric)).toBeLessThan(2e-3 * Math.max(1, Math.abs(numeric)))
    })
  }

  it('a symbolic batch gives the same gradient as a fixed one', async () => {
    const build: GradCase['build'] = (g, [x, w]) => {
      const rows = g.Reshape(x!, ['batch*seq', 4])
      return g.Reshape(g.Gemm(rows, w!), ['batch', 'seq', 5])
    }
    const shapes = [
      [2, 3, 4],
      [4, 5],
    ]
    const symbolic = await gradCheck({ title: 'symbolic', shapes, build, symbols: ['batch', 'seq', 4] })
    expect(symbolic.analytic).toBeCloseTo(symbolic.numeric, 3)
  })
})
