import { expect, it } from 'vitest'
import { openModel } from '../../../engine/models/index.ts'
import { type AttentionForm, partedAttention, sequenceAttention } from '../../../engine/nn/attention.ts'
import { causalMask, consecutivePositions } from '../../../engine/nn/masks.ts'
import { ModelBuilder } from '../../../engine/nn/model-builder.ts'
import { Session } from '../../../engine/onnx/session.ts'
import { floatTensor, intTensor } from '../../../engine/tensor.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'
import { gaussian } from '../weights/tiny-model.ts'

const BATCH = 2

/** What a form makes of the same random queries, keys and values of `length` tokens. */
async function attended(form: (m: ModelBuilder) => AttentionForm, length: number, window: number | null) {
  const { weights, config } = openModel(ANNEAL_TINY)
  const m = new ModelBuilder(weights, {})
  const { heads, keyValueHeads, headDim } = config
  const sizes = { query: heads, key: keyValueHeads, value: keyValueHeads }
  const [query, key, value] = Object.entries(sizes).map(([name, count]) =>
    m.g.input(name, 'float32', ['batch', count, 'seq', headDim]),
  )
  const result = form(m).attend(m, config, { layer: 0, window, query: query!, key: key!, value: value! })
  const session = await Session.create(m.g.finish([result]), { threads: 1 })
  const feeds = Object.entries(sizes).map(([name, count], seed) => {
    const dims = [BATCH, count, length, headDim]
    return [name, floatTensor(gaussian(BATCH * count * length * headDim, seed), dims)] as const
  })
  const results = await session.run({
    ...Object.fromEntries(feeds),
    input_ids: intTensor(new BigInt64Array(BATCH * length), [BATCH, length]),
    position_ids: consecutivePositions(BATCH, length),
    attention_mask: causalMask(length),
  })
  await session.release()
  weights.close()
  return results[result.name]!
}

it.each([
  ['a length that the parts do not divide', 300, null],
  ['a window', 300, 40],
  ['fewer tokens than a part', 20, null],
])('attention in parts is attention at once: %s', async (_, length, window) => {
  const whole = await attended((m) => sequenceAttention(m), length, window)
  const parted = await attended((m) => partedAttention(m, length), length, window)
  expect(parted.dims).toEqual(whole.dims)
  const [a, b] = [whole, parted].map(({ data }) => data as Float32Array)
  const differences = a!.map((value, i) => Math.abs(value - b![i]!))
  expect(differences.reduce((x, y) => Math.max(x, y))).toBeLessThan(1e-5)
})
