import type { DType } from '../tensor.ts'

/** A dimension: a known size, or a symbol ('batch', 'seq', '3*seq') that is fixed only when a session runs. */
export type Dim = number | string
export type Shape = readonly Dim[]

/** One edge of the graph. */
export interface Value {
  readonly name: string
  readonly dtype: DType
  readonly shape: Shape
}

/** Type of an operation's output, as its shape rule finds it. */
export interface ResultType {
  readonly dtype: DType
  readonly shape: Shape
}

/** factor · dim, simplified: multiply(3, 'seq') is '3*seq', multiply(2, '3*seq') is '6*seq'. */
export function multiplyDims(left: Dim, right: Dim): Dim {
  const [leftFactor, leftSymbols] = splitDim(left)
  const [rightFactor, rightSymbols] = splitDim(right)
  const factor = leftFactor * rightFactor
  const symbols = [...leftSymbols, ...rightSymbols].sort()
  if (symbols.length === 0 || factor === 0) return factor
  return factor === 1 ? symbols.join('*') : [factor, ...symbols].join('*')
}

/** The product of all dimensions of a shape. */
export function shapeSize(shape: Shape): Dim {
  return shape.reduce<Dim>((product, dim) => multiplyDims(product, dim), 1)
}

/** '[batch, 3, seq]', for messages and prints. */
export function formatShape(shape: Shape): string {
  return `[${shape.join(', ')}]`
}

export function sameShape(left: Shape, right: Shape): boolean {
  return left.length === right.length && left.every((dim, axis) => dim === right[axis])
}

function splitDim(dim: Dim): [number, string[]] {
  if (typeof dim === 'number') return [dim, []]
  const parts = dim.split('*')
  const factor = Number(parts[0])
  return Number.isNaN(factor) ? [1, parts] : [factor, parts.slice(1)]
}
