import type { Op, OpAttributes } from './ops.ts'
import type { Value } from './values.ts'

/** One operation; null stands for an omitted optional input. */
export interface Node<K extends Op = Op> {
  readonly op: K
  readonly inputs: readonly (Value | null)[]
  readonly outputs: readonly Value[]
  readonly attributes: OpAttributes[K]
}

/** A stretch of a builder's nodes, [start, end): a layer. */
export interface Segment {
  readonly start: number
  readonly end: number
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
