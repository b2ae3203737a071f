import { describe, expect, it } from 'vitest'
import { GraphBuilder } from '../../../engine/graph/builder.ts'
import {
  fuseAddIntoGemm,
  fuseAddIntoNorm,
  orderForMemory,
  removeDeadNodes,
} from '../../../engine/graph/passes.ts'
import { printGraph } from '../../../engine/graph/print.ts'
import { multiplyDims } from '../../../engine/graph/values.ts'
import { Session } from '../../../engine/onnx/session.ts'
import { floatTensor } from '../../../engine/tensor.ts'

describe('dimensions', () => {
  it('multiply as numbers and symbols, whatever the order', () => {
    expect(multiplyDims(2, 3)).toBe(6)
    expect(multiplyDims(1, 'seq')).toBe('seq')
    expect(multiplyDims('seq', 3)).toBe('3*seq')
    expect(multiplyDims('seq', 'batch')).toBe(multiplyDims('batch', 'seq'))
    expect(multiplyDims(2, '3*seq')).toBe('6*seq')
  })
})

describe('GraphBuilder', () => {
  it('prints a graph with every shape inferred', () => {
    const g = new GraphBuilder()
    const x = g.input('x', 'float32', ['batch', 'seq', 4])
    const rows = g.Reshape(x, ['batch*seq', 4])
    const y = g.scope('layer', () => g.Gemm(rows, g.input('w', 'float32', [8, 4]), { transB: 1 }))
    expect(printGraph(g.finish([g.Softmax(y)]))).toMatchInlineSnapshot(`
      "input x: float32[batch, seq, 4]
      input w: float32[8, 4]
      Reshape_0: float32[batch*seq, 4] = Reshape(x, constant_0) {allowzero=0}
      layer/Gemm_1: float32[batch*seq, 8] = Gemm(Reshape_0, w) {transA=0 transB=1 alpha=1}
      Softmax_2: float32[batch*seq, 8] = Softmax(layer/Gemm_1) {axis=-1}
      output Softmax_2"
    `)
  })

  it('refuses shapes that do not fit, naming both', () => {
    const g = new GraphBuilder()
    const a = g.input('a', 'float32', [3, 4])
    expect(() => g.Add(a, g.input('b', 'float32', [5]))).toThrow('[3, 4] and [5]')
    expect(() => g.Gemm(a, a)).toThrow('a [3, 4] · a [3, 4]')
    expect(() => g.Add(a, g.input('s', 'float32', [3, 'seq']))).toThrow('[3, 4] and [3, seq]')
    expect(() => g.Reshape(a, [5, 2])).toThrow('does not fit [5, 2]')
    expect(() => g.Add(a, g.ints([1]))).toThrow('float32')
  })

  it('reshapes with two run-time sizes, also when one of them is zero', async () => {
    const g = new GraphBuilder()
    const x = g.input('x', 'float32', ['batch', 'seq', 6])
    g.bindDim('batch', x, 0)
    g.bindDim('seq', x, 1)
    const flat = g.Reshape(x, ['batch*seq', 6])
    const session = await Session.create(g.finish([g.Reshape(flat, ['batch', 'seq', 2, 3])]))
    for (const [batch, seq] of [
      [2, 5],
      [1, 0],
    ] as const) {
      const data = Float32Array.from({ length: batch * seq * 6 }, (_, i) => i)
      const [result] = Object.values(await session.run({ x: floatTensor(data, [batch, seq, 6]) }))
      expect(result!.dims).toEqual([batch, seq, 2, 3])
      expect(result!.data).toEqual(data)
    }
    await session.release()
  })
})

describe('passes', () => {
  it('an addition to a matrix product becomes its C operand, unless the product has another reader', () => {
    const g = new GraphBuilder()
    const a = g.input('a', 'float32', [2, 2])
    const fused = g.Add(a, g.Gemm(a, a))
    const shared = g.Gemm(a, fused)
    const outputs = [g.Mul(g.Add(shared, a), shared)]
    const nodes = fuseAddIntoGemm(g.nodes, outputs)
    expect(nodes.map((node) => `${node.op}/${node.inputs.length}`)).toEqual([
      'Gemm/3',
      'Gemm/2',
      'Add/2',
      'Mul/2',
    ])
  })

  it('a sum and the norm after it become one operation, unless something reads the sum before the norm', () => {
    const g = new GraphBuilder()
    const [a, b] = ['a', 'b'].map((name) => g.input(name, 'float32', [2, 4]))
    const scale = g.input('scale', 'float32', [4])
    const fused = g.SimplifiedLayerNormalization(g.Add(a!, b!), scale, 1e-5)[0]
    const sum = g.Add(fused, a!)
    g.Neg(sum)
    g.SimplifiedLayerNormalization(sum, scale, 1e-5)
    const nodes = fuseAddIntoNorm([...g.nodes])
    expect(nodes.map(({ op }) => op)).toEqual([
      'SkipSimplifiedLayerNormalization',
      'Add',
      'Neg',
      'SimplifiedLayerNormalization',
    ])
    expect(nodes[0]!.outputs[0]).toBe(fused)
  })

  it('nodes that reach no output are removed', () => {
    const g = new GraphBuilder()
    const a = g.input('a', 'float32', [2])
    g.Exp(g.Neg(a))
    const kept = g.Neg(a)
    expect(removeDeadNodes(g.nodes, [kept])).toHaveLength(1)
  })

  it('gradient leaves move to the end in their order and the loss before them', () => {
    const g = new GraphBuilder()
    const a = g.input('a', 'float32', [2])
    const loss = g.ReduceSum(a, [0], 0)
    const first = g.Neg(a)
    const middle = g.Exp(a)
    const second = g.Neg(middle)
    const ordered = orderForMemory(g.nodes, [first, second], loss)
    expect(ordered.map((node) => node.outputs[0]!.name)).toEqual(
      [middle, loss, first, second].map((value) => value.name),
    )
  })
})
