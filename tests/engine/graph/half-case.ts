import type { Graph, Node } from '../../../engine/graph/graph.ts'
import type { Value } from '../../../engine/graph/values.ts'
import { floatTensor, type Tensor } from '../../../engine/tensor.ts'
import { float16Value, float32ToFloat16 } from '../../../engine/weights/dtypes.ts'
import type { OpCase } from './op-cases.ts'

/** A case and its like in float16. */
export interface HalfCase {
  /** In float32, on numbers that float16 holds. */
  readonly exact: OpCase
  readonly half: OpCase
}

/** The same operation in float16, where all of it can be: nodes that make zeros or positions have a type of their own. */
export function halfCase({ title, graph, feeds }: OpCase): HalfCase | undefined {
  const fixed = graph.nodes.some(({ op }) => op === 'Cast' || op === 'ConstantOfShape' || op === 'Range')
  const values = [...graph.inputs, ...graph.constants.map(({ value }) => value)]
  if (fixed || values.every(({ dtype }) => dtype !== 'float32')) return undefined
  const exactFeeds = mapFloats(feeds, (data) => Float32Array.from(rounded(data), float16Value))
  const exactConstants = graph.constants.map(({ value, data }) => {
    const floats = value.dtype === 'float32' ? rounded(new Float32Array(data.slice().buffer)) : undefined
    return { value, data: floats ? bytesOf(Float32Array.from(floats, float16Value)) : data }
  })
  const halfFeeds: Record<string, Tensor> = {}
  for (const [name, tensor] of Object.entries(feeds)) {
    const { dtype, dims, data } = tensor
    halfFeeds[name] =
      dtype === 'float32' ? { dtype: 'float16', dims, data: rounded(data as Float32Array) } : tensor
  }
  return {
    exact: { title, graph: { ...graph, constants: exactConstants }, feeds: exactFeeds },
    half: { title: `${title} in float16`, graph: asHalf(graph), feeds: halfFeeds },
  }
}

/** Float16 numbers of a fetched tensor as float64, any others as they are. */
export function widened({ dtype, data }: Tensor): ArrayLike<number | bigint> {
  return dtype === 'float16' ? Float64Array.from(data as Uint16Array, float16Value) : data
}

function asHalf(graph: Graph): Graph {
  const half = (value: Value): Value => (value.dtype === 'float32' ? { ...value, dtype: 'float16' } : value)
  return {
    ...graph,
    inputs: graph.inputs.map(half),
    outputs: graph.outputs.map(half),
    nodes: graph.nodes.map(
      (node) =>
        ({
          ...node,
          inputs: node.inputs.map((value) => value && half(value)),
          outputs: node.outputs.map(half),
        }) as Node,
    ),
    constants: graph.constants.map(({ value, data }) =>
      value.dtype === 'float32'
        ? { value: half(value), data: bytesOf(rounded(new Float32Array(data.slice().buffer))) }
        : { value, data },
    ),
  }
}

function mapFloats(
  feeds: Readonly<Record<string, Tensor>>,
  change: (data: Float32Array) => Float32Array<ArrayBuffer>,
): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(feeds).map(([name, tensor]) =>
      tensor.dtype === 'float32'
        ? [name, floatTensor(change(tensor.data as Float32Array), tensor.dims)]
        : [name, tensor],
    ),
  )
}

function rounded(data: Float32Array): Uint16Array<ArrayBuffer> {
  return new Uint16Array(float32ToFloat16(data).slice().buffer)
}

function bytesOf({ buffer }: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(buffer as ArrayBuffer)
}
