/** Element types that cross the border between JavaScript and a session. bfloat16 cannot: it exists inside graphs only. */
export type FeedDType = 'float32' | 'float16' | 'int64' | 'int32' | 'uint8' | 'int8' | 'bool'
/** Element types inside a graph. Two uint4 share a byte, the first in its low half. */
export type DType = FeedDType | 'bfloat16' | 'uint4'

/** A dense, row-major array with its element type; float16 is held as raw bits in a Uint16Array. */
export interface Tensor {
  readonly dtype: FeedDType
  readonly dims: readonly number[]
  readonly data: Float32Array | Uint16Array | BigInt64Array | Int32Array | Uint8Array | Int8Array
}

/** Number of elements of a shape; the empty shape is a scalar and has one. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1)
}

/** A float32 tensor over `data`, without copying. */
export function floatTensor(data: Float32Array, dims: readonly number[]): Tensor {
  return { dtype: 'float32', dims, data }
}

/** An int64 tensor over `data`, without copying. */
export function intTensor(data: BigInt64Array, dims: readonly number[]): Tensor {
  return { dtype: 'int64', dims, data }
}

/** a − b, element by element. */
export function difference(a: Float32Array, b: Float32Array): Float32Array {
  const result = new Float32Array(a.length)
  for (let i = 0; i < a.length; i++) result[i] = a[i]! - b[i]!
  return result
}
