import { backward } from '../../../engine/autodiff/backward.ts'
import { GraphBuilder } from '../../../engine/graph/builder.ts'
import type { Dim, Value } from '../../../engine/graph/values.ts'
import { Session } from '../../../engine/onnx/session.ts'
import { createRandom } from '../../../engine/random.ts'
import { elementCount, floatTensor, type Tensor } from '../../../engine/tensor.ts'

/** One operation applied to float inputs of given shapes; other operands are closed over. */
export interface GradCase {
  readonly title: string
  readonly shapes: readonly (readonly number[])[]
  readonly build: (g: GraphBuilder, inputs: readonly Value[]) => Value
  /** Keeps inputs away from kinks and poles: values are drawn from [low, high). */
  readonly range?: readonly [number, number]
  /** Sizes for symbolic dimensions: these axes of the first input are declared by symbol. */
  readonly symbols?: readonly Dim[]
}

export interface GradCheckResult {
  /** ⟨u, J·v⟩ by central differences. */
  readonly numeric: number
  /** ⟨Jᵀ·u, v⟩ by the gradient table. */
  readonly analytic: number
}

/**
 * Compares ⟨u, J·v⟩, a central difference along a random direction v of all inputs, with ⟨Jᵀ·u, v⟩ from `backward`,
 * for a random weighting u of the outputs.
 */
export async function gradCheck(testCase: GradCase, seed = 7): Promise<GradCheckResult> {
  const random = createRandom(seed)
  const [low, high] = testCase.range ?? [-1, 1]
  const draw = (shape: readonly number[], from = -1, to = 1) =>
    Float32Array.from({ length: elementCount(shape) }, () => from + (to - from) * random.next())
  const points = testCase.shapes.map((shape) => draw(shape, low, high))
  const directions = testCase.shapes.map((shape) => draw(shape))

  const g = new GraphBuilder()
  const inputs = testCase.shapes.map((shape, index) =>
    g.input(`x${index}`, 'float32', index === 0 ? (testCase.symbols ?? shape) : shape),
  )
  testCase.symbols?.forEach((dim, axis) => {
    if (typeof dim === 'string') g.bindDim(dim, inputs[0]!, axis)
  })
  const y = testCase.build(g, inputs)
  const weighting = g.input('weighting', 'float32', y.shape)
  const axes = y.shape.map((_, axis) => axis)
  const product = g.Mul(y, weighting)
  const loss = axes.length === 0 ? product : g.ReduceSum(product, axes, 0)
  const gradients = backward(g, loss, inputs)
  const session = await Session.create(g.finish([loss, y, ...gradients]))
  try {
    const feeds = (offset: number, u: Tensor): Record<string, Tensor> => ({
      weighting: u,
      ...Object.fromEntries(
        points.map((point, index) => {
          const moved = point.map((value, i) => value + offset * directions[index]![i]!)
          return [`x${index}`, floatTensor(moved, testCase.shapes[index]!)]
        }),
      ),
    })
    const outputShape = resolve(y.shape, testCase)
    const u = floatTensor(draw(outputShape), outputShape)
    const step = 1e-2
    const at = async (offset: number) => {
      const results = await session.run(feeds(offset, u), [y.name])
      return results[y.name]!.data as Float32Array
    }
    const [plus, minus] = [await at(step), await at(-step)]
    const numeric = plus.reduce(
      (sum, value, i) => sum + ((value - minus[i]!) * (u.data[i] as number)) / (2 * step),
      0,
    )
    const results = await session.run(feeds(0, u))
    const analytic = gradients.reduce((sum, gradient, index) => {
      const values = results[gradient.name]!.data as Float32Array
      return sum + values.reduce((inner, value, i) => inner + value * directions[index]![i]!, 0)
    }, 0)
    return { numeric, analytic }
  } finally {
    await session.release()
  }
}

function resolve(shape: readonly Dim[], testCase: GradCase): number[] {
  const sizes = new Map<string, number>()
  testCase.symbols?.forEach((dim, axis) => {
    if (typeof dim === 'string') sizes.set(dim, testCase.shapes[0]![axis]!)
  })
  return shape.map((dim) =>
    typeof dim === 'number'
      ? dim
      : dim.split('*').reduce((size, part) => size * (sizes.get(part) ?? Number(part)), 1),
  )
}
