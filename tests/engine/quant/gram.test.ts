import { describe, expect, it } from 'vitest'
import { GraphBuilder } from '../../../engine/graph/builder.ts'
import { Session } from '../../../engine/onnx/session.ts'
import { addGram, emitGram } from '../../../engine/quant/gram.ts'
import { floatTensor } from '../../../engine/tensor.ts'
import { gaussian } from '../weights/tiny-model.ts'

const ROWS = 300
/** Two strips and a part of one. */
const WIDTH = 400

/** Xᵀ·X in double precision, and what the graph's runs over `batches` add up to. */
async function both(x: Float32Array, batches: number) {
  const g = new GraphBuilder()
  const gram = emitGram(g, g.input('x', 'float32', ['rows', WIDTH]))
  const outputs = [gram.largest, ...gram.strips.map(({ value }) => value)]
  const session = await Session.create(g.finish(outputs), { threads: 1 })
  const sum = new Float32Array(WIDTH * WIDTH)
  const size = x.length / batches
  for (let from = 0; from < x.length; from += size) {
    const part = floatTensor(x.subarray(from, from + size), [size / WIDTH, WIDTH])
    addGram(sum, gram, await session.run({ x: part }))
  }
  await session.release()
  const exact = (i: number, j: number) => {
    let total = 0
    for (let row = 0; row < x.length; row += WIDTH) total += x[row + i]! * x[row + j]!
    return total
  }
  return { sum, exact }
}

describe('Xᵀ·X in integers', () => {
  it('is that of the inputs but for their rounding, whatever the size of each column', async () => {
    const x = gaussian(ROWS * WIDTH, 3).map((value, i) => value * 10 ** ((i % WIDTH) % 7))
    const { sum, exact } = await both(x, 3)
    let largest = 0
    for (let i = 0; i < WIDTH; i += 13) {
      for (let j = i; j < WIDTH; j += 3) {
        const size = Math.sqrt(exact(i, i) * exact(j, j))
        largest = Math.max(largest, Math.abs(sum[i * WIDTH + j]! - exact(i, j)) / size)
      }
    }
    expect(largest).toBeLessThan(0.005)
    expect(sum[WIDTH]).toBe(0) // below the diagonal
  })

  it('keeps a column that is always zero at zero', async () => {
    const { sum } = await both(
      gaussian(ROWS * WIDTH, 4).map((value, i) => (i % WIDTH === 5 ? 0 : value)),
      1,
    )
    for (let j = 5; j < WIDTH; j++) expect(sum[5 * WIDTH + j]).toBe(0)
  })

  it('puts no more than rows / 12·90² on the diagonal of a column with one large value', async () => {
    const x = gaussian(ROWS * WIDTH, 5).map((value, i) => (i === 7 ? 1000 : value))
    const { sum, exact } = await both(x, 1)
    expect(Math.abs(sum[7 * WIDTH + 7]! / exact(7, 7) - 1)).toBeLessThan(ROWS / (12 * 90 ** 2))
  })
})
