import { greatestCommonDivisor } from '../integers.ts'
import type { GraphBuilder } from './builder.ts'
import { type Accelerator, hasKernel } from './device-table.ts'
import type { Node } from './graph.ts'
import type { Op } from './ops.ts'
import type { StoredProducts } from './stored-products.ts'
import type { Dim, Value } from './values.ts'

/** What a rule may ask about the graph that it rewrites. */
export interface LoweringContext {
  readonly g: GraphBuilder
  readonly device: Accelerator
  readonly inputs: readonly Value[]
  /** Whether anything reads the value. */
  readonly isRead: (value: Value) => boolean
  /** Whether the value is computed from constants and weights alone, once, when the graph is loaded. */
  readonly isFrozen: (value: Value) => boolean
  /** The node that makes a value; undefined for inputs, constants and weights. */
  readonly producerOf: (value: Value) => Node | undefined
  /** Products of weights as they are stored, where the session asks for them and the device has them. */
  readonly storedProducts: StoredProducts | undefined
}

/** The values that take the place of a node's outputs, or undefined to keep the node. */
export type LoweringRule = (
  context: LoweringContext,
  node: Node,
) => readonly (Value | undefined)[] | undefined

/** A shader reads and writes at least eight buffers on every adapter (WebGPU's maxStorageBuffersPerShaderStage). */
const MOST_PARTS = 7

/**
 * What stands for an operation where the device has no kernel, or a wrong one. Each is equal to the operation but for
 * rounding, and is tried in place of every node of its kind.
 */
export const loweringRules: { readonly [K in Op]?: LoweringRule } = {
  Gemm: productOfStored,
  MatMul: productOfStored,

  // α·op(A)·op(B): transpositions and a scaling of their own
  FusedMatMul: (context, node) => {
    if (hasKernel(context.device, node)) return productOfStored(context, node)
    const { g } = context
    const [a, b] = node.inputs as readonly Value[]
    const { transA, transB, alpha } = (node as Node<'FusedMatMul'>).attributes
    const scale = (x: Value) => g.Mul(x, g.scalar(alpha))
    const flip = (x: Value, swap: 0 | 1) => (swap ? g.Transpose(x, lastTwoSwapped(x)) : x)
    const product = (x: Value, y: Value) => g.MatMul(flip(x, transA), flip(y, transB))
    if (alpha === 1) return [product(a!, b!)]
    // the scaling goes where fewest numbers are: keys and queries are narrow, scores are not
    if (isNarrow(a!)) return [product(scale(a!), b!)]
    return [isNarrow(b!) ? product(a!, scale(b!)) : scale(product(a!, b!))]
  },

  // log softmax(x) = (x - max) - log Σ exp(x - max)
  LogSoftmax: (context, node) => {
    if (hasKernel(context.device, node)) return undefined
    const { g } = context
    const { axis } = (node as Node<'LogSoftmax'>).attributes
    const [x] = node.inputs as readonly Value[]
    const shifted = g.Sub(x!, g.ReduceMax(x!, [axis], 1))
    return [g.Sub(shifted, g.Log(g.ReduceSum(g.Exp(shifted), [axis], 1)))]
  },

  // sign(x) = [x ≥ 0] - [0 ≥ x]
  Sign: (context, node) => {
    if (hasKernel(context.device, node)) return undefined
    const { g } = context
    const [x] = node.inputs as readonly Value[]
    const zero = g.scalar(0)
    const asNumber = (left: Value, right: Value) => g.Cast(g.GreaterOrEqual(left, right), 'float32')
    return [g.Sub(asNumber(x!, zero), asNumber(zero, x!))]
  },

  ConstantOfShape: (context, node) => {
    if (hasKernel(context.device, node)) return undefined
    const { g } = context
    return [g.emit('Expand', [g.scalar(0), node.inputs[0]!], { shape: node.outputs[0]!.shape })]
  },

  // WebGPU's second output, 1 / rms(x), comes back as zeros
  SimplifiedLayerNormalization: ({ g, device, isRead }, node) => {
    const [, inverse] = node.outputs
    if (device !== 'webgpu' || !inverse || !isRead(inverse)) return undefined
    const [x, scale] = node.inputs as readonly Value[]
    const { epsilon } = (node as Node<'SimplifiedLayerNormalization'>).attributes
    const meanSquare = g.ReduceMean(g.Mul(x!, x!), [-1], 1)
    const rms = g.Sqrt(g.Add(meanSquare, g.scalar(epsilon)))
    return [g.SimplifiedLayerNormalization(x!, scale!, epsilon)[0], g.Div(g.scalar(1), rms)]
  },

  // indices of the largest, compared with integers that are fed: as float32, which holds them exactly
  Equal: (context, node) => {
    if (hasKernel(context.device, node)) return undefined
    const { g } = context
    const [left, right] = node.inputs as readonly Value[]
    const found = [left!, right!].map(context.producerOf).find((made) => made?.op === 'ArgMax')
    if (!found) return undefined
    const columns = found.inputs[0]!.shape[(found as Node<'ArgMax'>).attributes.axis]
    if (typeof columns !== 'number' || columns > 2 ** 24) return undefined
    const places = g.constant(
      'float32',
      [columns],
      Float32Array.from({ length: columns }, (_, i) => i),
    )
    return [g.Equal(g.Gather(places, left!), g.Cast(right!, 'float32'))]
  },

  // a weight of a type that the device lacks is widened as a whole, once
  Gather: (context, node) => {
    const [data, indices] = node.inputs as readonly Value[]
    if (hasKernel(context.device, node) || !isHalf(data!) || !context.isFrozen(data!)) return undefined
    const { axis } = (node as Node<'Gather'>).attributes
    return [context.g.Gather(context.g.Cast(data!, 'float32'), indices!, axis)]
  },

  Cast: ({ g, isFrozen }, node) => {
    const [x] = node.inputs as readonly Value[]
    const { to } = (node as Node<'Cast'>).attributes
    if (x!.dtype === to) return [x]
    // A look-up's packed codes must not be widened at load, so they go through an operation that isn't folded.
    if (x!.dtype === 'uint8' && to === 'int32' && isFrozen(x!)) {
      const codes = g.emit('DequantizeLinear', [x!, g.scalar(1)], { axis: 0, block_size: 0 })
      return [g.Cast(codes, 'int32')]
    }
    return undefined
  },

  // a block of a row becomes a row, or part of one where blocks do not divide rows
  DequantizeLinear: (context, node) => {
    if (hasKernel(context.device, node)) return undefined
    const { g } = context
    const { block_size } = (node as Node<'DequantizeLinear'>).attributes
    const [codes, ...perBlock] = node.inputs as readonly Value[]
    const [rows, columns] = codes!.shape as readonly number[]
    const part = greatestCommonDivisor(columns!, block_size)
    const blocks = Array.from({ length: columns! / part }, (_, i) => Math.floor((i * part) / block_size))
    const parts = rows! * blocks.length
    const perPart = perBlock.map((x) =>
      g.Reshape(part === block_size ? x : g.Gather(x, g.ints(blocks), 1), [parts]),
    )
    const byRow = [g.Reshape(codes!, [parts, part]), ...perPart]
    return [g.Reshape(g.emit('DequantizeLinear', byRow, { axis: 0, block_size: 0 }), [rows!, columns!])]
  },

  // sizes are read from inputs, where the same symbols mean the same sizes, so that the host can compute with them
  Shape: ({ g, inputs }, node) => {
    const [source] = node.inputs as readonly Value[]
    if (inputs.includes(source!)) return undefined
    const { start, end } = (node as Node<'Shape'>).attributes
    const sizes = source!.shape.slice(start, end).map((dim) => sizeFrom(g, inputs, dim))
    if (sizes.includes(undefined)) return undefined
    return [sizes.length === 1 ? sizes[0] : g.Concat(sizes as Value[], 0)]
  },

  // a tree of cuts into few parts each
  Split: ({ g, device }, node) => {
    const { axis, sizes } = (node as Node<'Split'>).attributes
    if (device !== 'webgpu' || sizes.length <= MOST_PARTS) return undefined
    if (!sizes.every((size) => typeof size === 'number')) return undefined
    return splitInTree(g, node.inputs[0]!, axis, sizes as readonly number[])
  },
}

function productOfStored({ storedProducts }: LoweringContext, node: Node): readonly Value[] | undefined {
  const product = storedProducts?.replace(node as Node<'Gemm'>)
  return product && [product]
}

/** A dimension as an int64 vector of one element, computed from the shapes of inputs; undefined where they don't tell. */
function sizeFrom(g: GraphBuilder, inputs: readonly Value[], dim: Dim): Value | undefined {
  if (typeof dim === 'number') return g.ints([dim])
  const input = inputs.find(({ shape }) => shape.includes(dim))
  if (input) {
    const axis = input.shape.indexOf(dim)
    return g.emit('Shape', [input], { start: axis, end: axis + 1 })
  }
  const op = dim.includes('+') ? 'Add' : 'Mul'
  const parts = dim.split(op === 'Add' ? '+' : '*')
  if (parts.length === 1) return undefined
  const sizes = parts.map((part) => sizeFrom(g, inputs, Number.isNaN(Number(part)) ? part : Number(part)))
  if (sizes.includes(undefined)) return undefined
  return (sizes as Value[]).reduce((left, right) => g.emit(op, [left, right], {}))
}

function splitInTree(g: GraphBuilder, x: Value, axis: number, sizes: readonly number[]): readonly Value[] {
  if (sizes.length <= MOST_PARTS) return sizes.length === 1 ? [x] : g.Split(x, axis, sizes)
  const each = MOST_PARTS ** Math.ceil(Math.log(sizes.length) / Math.log(MOST_PARTS) - 1)
  const groups = Array.from({ length: Math.ceil(sizes.length / each) }, (_, index) =>
    sizes.slice(index * each, (index + 1) * each),
  )
  const totals = groups.map((group) => group.reduce((sum, size) => sum + size, 0))
  return g.Split(x, axis, totals).flatMap((part, index) => splitInTree(g, part, axis, groups[index]!))
}

function lastTwoSwapped({ shape }: Value): number[] {
  const axes = shape.map((_, axis) => axis)
  return [...axes.slice(0, -2), axes.at(-1)!, axes.at(-2)!]
}

/** A matrix of which one side has a known size, as the width of a head. */
function isNarrow({ shape }: Value): boolean {
  return shape.slice(-2).some((dim) => typeof dim === 'number')
}

function isHalf({ dtype }: Value): boolean {
  return dtype === 'bfloat16' || dtype === 'float16'
}
