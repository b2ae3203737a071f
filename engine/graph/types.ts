import type { DType } from '../tensor.ts'
import type { Op, OpAttributes } from './ops.ts'

/** A dimension: a known size, or a symbol ('batch', 'seq', '3*seq') that is fixed only when a session runs. */
export type Dim = number | string
export type Shape = readonly Dim[]

/** One edge of the graph. */
export interface Value {
  readonly name: string
  readonly dtype: DType
  readonly shape: Shape
}

/** One operation; null stands for an omitted optional input. */
export interface Node<K extends Op = Op> {
  readonly op: K
  readonly inputs: readonly (Value | null)[]
  readonly outputs: readonly Value[]
  readonly attributes: OpAttributes[K]
}

/** A constant that lives in the graph's own bytes. */
export interface Constant {
  readonly value: Value
  readonly data: Uint8Array
}

/** A constant that lives in a file beside the graph and is mapped from there, never copied. */
export interface ExternalWeight {
  readonly value: Value
  readonly file: string
  readonly offset: number
  readonly byteLength: number
}

/** A complete graph: what `encodeModel` writes as ONNX. */
export interface Graph {
  readonly inputs: readonly Value[]
  readonly outputs: readonly Value[]
  readonly nodes: readonly Node[]
  readonly constants: readonly Constant[]
  readonly weights: readonly ExternalWeight[]
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
