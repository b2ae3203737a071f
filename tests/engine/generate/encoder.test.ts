import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Encoder } from '../../../engine/generate/encoder.ts'
import { loadTokenizer, type ModelTokenizer } from '../../../engine/text/tokenizer.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'

/** By transformers; encoder-reference.py makes it. */
const reference = JSON.parse(readFileSync(new URL('encoder-reference.json', import.meta.url), 'utf8')) as {
  cases: { text: string; ids: number[]; vector: number[]; scores: number[] }[]
}

describe('Encoder', () => {
  let encoder: Encoder
  let tokenizer: ModelTokenizer

  beforeAll(() => {
    tokenizer = loadTokenizer(ANNEAL_TINY)
    encoder = new Encoder(ANNEAL_TINY, { threads: 1, maxTokens: 64 })
  })
  afterAll(() => encoder.release())

  it("pools and normalises the last hidden states as transformers' come", async () => {
    for (const { text, ids, vector } of reference.cases) {
      expect([...tokenizer.encode(text)]).toEqual(ids)
      const embedded = await encoder.embed(Int32Array.from(ids))
      for (const [at, value] of vector.entries()) expect(embedded[at]).toBeCloseTo(value, 5)
      expect(Math.hypot(...embedded)).toBeCloseTo(1, 6)
    }
  })

  it("scores a prompt's tokens as transformers does, and ranks the likeliest beside them", async () => {
    for (const { ids, scores } of reference.cases) {
      const scored = await encoder.score(Int32Array.from(ids), 3)
      expect(scored.map(({ id }) => id)).toEqual(ids)
      expect(scored[0]).toEqual({ id: ids[0], logprob: 0, top: [] })
      for (const [at, score] of scores.entries()) {
        const { logprob, top } = scored[at + 1]!
        expect(logprob).toBeCloseTo(score, 4)
        expect(top.map((entry) => entry.logprob)).toEqual(
          top.map((entry) => entry.logprob).sort((a, b) => b - a),
        )
        expect(top[0]!.logprob).toBeGreaterThanOrEqual(logprob)
      }
    }
  })

  it('refuses what it cannot read at once', async () => {
    await expect(encoder.embed(new Int32Array(65))).rejects.toMatchObject({
      kind: 'too_large',
      code: 'context_length_exceeded',
      message: expect.stringMatching(/\b65\b.*\b64\b/),
    })
    await expect(encoder.score(new Int32Array(0), 1)).rejects.toMatchObject({ code: 'empty_prompt' })
  })
})
