import { describe, expect, it } from 'vitest'
import { GraphBuilder } from '../../../engine/graph/builder.ts'
import { Session } from '../../../engine/onnx/session.ts'
import { orderedValues } from '../../../engine/packed/ordered-values.ts'
import { type PackedMatrix, withPackedProducts } from '../../../engine/quant/packed-products.ts'
import { quantizeIntBlocks } from '../../../engine/quant/round-int-blocks.ts'
import { floatTensor } from '../../../engine/tensor.ts'
import { gaussian } from '../weights/tiny-model.ts'

const [TOKENS, COLUMNS, ROWS] = [24, 160, 32]

/** x·Wᵀ + c and x·Vᵀ of two weights that are fed, followed by their sum. */
function twoProducts() {
  const g = new GraphBuilder()
  const x = g.input('x', 'float32', ['tokens', COLUMNS])
  const [w, v] = ['w', 'v'].map((name) => g.input(name, 'float32', [ROWS, COLUMNS]))
  const addend = g.input('c', 'float32', ['tokens', ROWS])
  const first = g.Gemm(x, w!, { transB: 1 }, addend)
  const sum = g.Add(first, g.Gemm(x, v!, { transB: 1 }))
  return { graph: g.finish([first, sum]), outputs: [first.name, sum.name] as const }
}

function matrix(seed: number, options: Partial<Parameters<typeof quantizeIntBlocks>[1]>, more = {}) {
  const sizes = { bits: 4, rows: ROWS, columns: COLUMNS, blockSize: 32, symmetric: true, ...options } as const
  const blocks = quantizeIntBlocks(gaussian(ROWS * COLUMNS, seed), sizes)
  return { blocks, order: undefined, inputScales: undefined, ...more }
}

/** What the matrix stands for, for inputs as they are. */
function values(packed: PackedMatrix): Float32Array {
  return orderedValues(packed).map((value, i) => value / (packed.inputScales?.[i % COLUMNS] ?? 1))
}

const order = Int32Array.from({ length: COLUMNS }, (_, i) => (i * 7) % COLUMNS)
const inputScales = Float32Array.from({ length: COLUMNS }, (_, i) => 1 + (i % 5))

describe('withPackedProducts', () => {
  it.each([
    ['4 bits', {}, {}],
    ['8 bits', { bits: 8 as const }, {}],
    ['asymmetric', { symmetric: false }, {}],
    ['a last block that is shorter', { blockSize: 64 }, {}],
    ['a block longer than a row', { blockSize: 256 }, {}],
    ['reordered inputs', {}, { order }],
    ['scaled inputs', {}, { inputScales }],
  ])(
    'computes what the widened matrices give, but for activations of 8 bits: %s',
    async (_, options, more) => {
      const { graph, outputs } = twoProducts()
      const quantized = new Map([
        ['w', matrix(1, options, more)],
        ['v', matrix(2, options, more)],
      ])
      const packed = withPackedProducts(graph, quantized)
      expect(packed.inputs.map(({ name }) => name)).toEqual(['x', 'c'])
      const x = floatTensor(gaussian(TOKENS * COLUMNS, 3), [TOKENS, COLUMNS])
      const c = floatTensor(gaussian(TOKENS * ROWS, 4), [TOKENS, ROWS])
      const weights = [...quantized].map(
        ([name, each]) => [name, floatTensor(values(each), [ROWS, COLUMNS])] as const,
      )
      const wide = await Session.create(graph, { threads: 1 })
      const narrow = await Session.create(packed, { threads: 1, prepack: true })
      const expected = await wide.run({ x, c, ...Object.fromEntries(weights) })
      const found = await narrow.run({ x, c })
      for (const name of outputs) {
        const [a, b] = [expected[name]!.data as Float32Array, found[name]!.data as Float32Array]
        const error = Math.hypot(...a.map((value, i) => value - b[i]!)) / Math.hypot(...a)
        expect(error).toBeLessThan(0.01)
        expect(error).toBeGreaterThan(0)
      }
      await wide.release()
      await narrow.release()
    },
  )

  it('leaves other products as they are', async () => {
    const { graph } = twoProducts()
    const packed = withPackedProducts(graph, new Map([['v', matrix(2, {})]]))
    expect(packed.inputs.map(({ name }) => name)).toEqual(['x', 'w', 'c'])
    expect(packed.nodes.map(({ op }) => op)).toEqual(['Gemm', 'MatMulNBits', 'Add'])
  })
})
