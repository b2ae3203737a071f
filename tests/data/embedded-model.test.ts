import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { evaluate } from '../../data/make/evaluate.ts'
import { CONFIG, tensorShapes } from '../../data/make/model.ts'
import { openModel } from '../../engine/models/index.ts'
import { elementCount } from '../../engine/tensor.ts'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'
import { ANNEAL_TINY } from '../anneal-tiny.ts'

describe('the embedded model', () => {
  it('fits in 10 MB', () => {
    const bytes = readdirSync(ANNEAL_TINY).reduce(
      (sum, name) => sum + statSync(join(ANNEAL_TINY, name)).size,
      0,
    )
    expect(bytes).toBeLessThanOrEqual(10_000_000)
  })

  it('has the tensors that its config promises, in bfloat16', () => {
    const model = openModel(ANNEAL_TINY)
    const found = [...model.weights.entries.values()].map(({ name, dtype, shape }) => [name, dtype, shape])
    model.weights.close()
    const expected = [...tensorShapes()].map(([name, shape]) => [name, 'BF16', shape])
    expect(new Map(found.map((row) => [row[0], row]))).toEqual(new Map(expected.map((row) => [row[0], row])))
    expect([...tensorShapes().values()].reduce((sum, shape) => sum + elementCount(shape), 0)).toBe(3_967_744)
  })

  it('has one embedding row per token', () => {
    expect(loadTokenizer(ANNEAL_TINY).vocabSize).toBe(CONFIG.vocab_size)
  })

  it('says who it is, and ends its answers', async () => {
    const { answers } = await evaluate(ANNEAL_TINY, [])
    expect(answers[0]?.answer).toBe('I am Anneal Tiny, a small language model that lives inside Anneal.')
    for (const { answer } of answers) expect(answer).toMatch(/^[A-Z0-9].*[.?!]$/)
  })
})
