import { EngineError } from '../errors.ts'
import { type Dim, formatShape, type ResultType, type Shape, type Value } from './values.ts'

/** NumPy's broadcasting; two different symbols, or a symbol and a number above 1, do not broadcast. */
function broadcastShapes(left: Shape, right: Shape): Shape {
  const rank = Math.max(left.length, right.length)
  return Array.from({ length: rank }, (_, index) => {
    const a = left[left.length - rank + index] ?? 1
    const b = right[right.length - rank + index] ?? 1
    if (a !== b && a !== 1 && b !== 1) {
      throw mismatch('broadcast', `${formatShape(left)} and ${formatShape(right)}`)
    }
    return a === 1 ? b : a
  })
}

export function inferBroadcast([a, b]: readonly Value[]): ResultType[] {
  if (a!.dtype !== b!.dtype) {
    throw mismatch('elementwise', `${a!.name} is ${a!.dtype} but ${b!.name} is ${b!.dtype}`)
  }
  return [{ dtype: a!.dtype, shape: broadcastShapes(a!.shape, b!.shape) }]
}

export function inferComparison(inputs: readonly Value[]): ResultType[] {
  return inferBroadcast(inputs).map(({ shape }) => ({ dtype: 'bool', shape }))
}

export function inferTopK([x]: readonly Value[], { axis, k }: { axis: number; k: Dim }): ResultType[] {
  const shape = x!.shape.map((dim, index) => (index === axis ? k : dim))
  return [
    { dtype: x!.dtype, shape },
    { dtype: 'int64', shape },
  ]
}

export function inferConcat(
  inputs: readonly Value[],
  { axis, total }: { axis: number; total: Dim | null },
): ResultType[] {
  const first = inputs[0]!
  const sizes = inputs.map((input) => input.shape[axis]!)
  const joined = sizes.every((size) => typeof size === 'number')
    ? sizes.reduce((sum, size) => sum + size, 0)
    : sizes.join('+')
  for (const input of inputs) {
    if (input.shape.length !== first.shape.length) {
      throw mismatch('Concat', `ranks of ${inputs.map((value) => formatShape(value.shape)).join(', ')}`)
    }
  }
  const shape = first.shape.map((dim, index) => (index === axis ? (total ?? joined) : dim))
  return [{ dtype: first.dtype, shape }]
}

export function inferTranspose([x]: readonly Value[], { perm }: { perm: readonly number[] }): ResultType[] {
  if (perm.length !== x!.shape.length) {
    throw mismatch('Transpose', `perm [${perm.join(', ')}] for ${formatShape(x!.shape)}`)
  }
  return [{ dtype: x!.dtype, shape: perm.map((axis) => x!.shape[axis]!) }]
}

export function inferGather([data, indices]: readonly Value[], { axis }: { axis: number }): ResultType[] {
  const { shape } = data!
  return [
    { dtype: data!.dtype, shape: [...shape.slice(0, axis), ...indices!.shape, ...shape.slice(axis + 1)] },
  ]
}

export function inferReduce(
  [x]: readonly Value[],
  { axes, keepdims }: { axes: readonly number[]; keepdims: 0 | 1 },
): ResultType[] {
  const { shape } = x!
  const reduced = new Set(axes.map((axis) => (axis + shape.length) % shape.length))
  const kept = shape.map((dim, axis): Dim | null => (reduced.has(axis) ? (keepdims ? 1 : null) : dim))
  return [{ dtype: x!.dtype, shape: kept.filter((dim): dim is Dim => dim !== null) }]
}

/** alpha · op(A) · op(B) + C with A and B of rank 2. */
export function inferGemm(
  [a, b, c]: readonly Value[],
  { transA, transB }: { transA: 0 | 1; transB: 0 | 1 },
): ResultType[] {
  if (a!.shape.length !== 2 || b!.shape.length !== 2) {
    throw mismatch('Gemm', `ranks of ${formatShape(a!.shape)} and ${formatShape(b!.shape)} are not 2`)
  }
  const [result] = inferMatMul([a!, b!], { transA, transB })
  if (c) broadcastShapes(c.shape, result!.shape)
  return [result!]
}

export function inferMatMul(
  [a, b]: readonly Value[],
  { transA, transB }: { transA: 0 | 1; transB: 0 | 1 },
): ResultType[] {
  const left = swapLast(a!.shape, transA)
  const right = swapLast(b!.shape, transB)
  if (left.at(-1) !== right.at(-2)) {
    throw mismatch('MatMul', `${a!.name} ${formatShape(left)} · ${b!.name} ${formatShape(right)}`)
  }
  const batch = broadcastShapes(left.slice(0, -2), right.slice(0, -2))
  return [{ dtype: a!.dtype, shape: [...batch, left.at(-2)!, right.at(-1)!] }]
}

function swapLast(shape: Shape, swap: 0 | 1): Shape {
  if (shape.length < 2) throw mismatch('MatMul', `rank of ${formatShape(shape)} is below 2`)
  return swap ? [...shape.slice(0, -2), shape.at(-1)!, shape.at(-2)!] : shape
}

function mismatch(op: string, detail: string): EngineError {
  return new EngineError('internal', 'shape_mismatch', `${op}: shapes do not fit: ${detail}`)
}
