import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Sampler } from '../../../engine/generate/sampler.ts'
import {
  DEFAULT_SAMPLING,
  type SamplingParams,
  samplingParams,
} from '../../../engine/generate/sampling-params.ts'
import { createRandom } from '../../../engine/random.ts'

const LOGITS = Float32Array.from([0.5, 0.4, 0.08, 0.02].map(Math.log))

function sampler(params: Partial<SamplingParams>, seed = 1): Sampler {
  return new Sampler({ ...DEFAULT_SAMPLING, ...params }, createRandom(seed).next)
}

function frequencies(params: Partial<SamplingParams>, logits = LOGITS, draws = 20_000): number[] {
  const drawing = sampler(params)
  const counts = new Array<number>(logits.length).fill(0)
  for (let i = 0; i < draws; i++) counts[drawing.next(logits)]!++
  return counts.map((count) => count / draws)
}

function expectClose(actual: number[], expected: number[]): void {
  expect(actual).toHaveLength(expected.length)
  for (let i = 0; i < actual.length; i++) expect(actual[i]).toBeCloseTo(expected[i]!, 1.7)
}

describe('Sampler', () => {
  it('draws from the softmax at temperature 1', () => {
    expectClose(frequencies({}), [0.5, 0.4, 0.08, 0.02])
  })

  it('sharpens with a temperature below 1 and flattens above', () => {
    const squares = [0.25, 0.16, 0.0064, 0.0004]
    const sum = squares.reduce((a, b) => a + b)
    expectClose(
      frequencies({ temperature: 0.5 }),
      squares.map((p) => p / sum),
    )
    expectClose(frequencies({ temperature: 100 }), [0.25, 0.25, 0.25, 0.25])
  })

  it('is greedy at temperature 0 and at top_k 1, and takes the lowest id among equals', () => {
    const tied = Float32Array.from([1, 7, 3, 7])
    expect(sampler({ temperature: 0 }).next(tied)).toBe(1)
    expect(sampler({ topK: 1 }).next(tied)).toBe(1)
    expect(sampler({ topK: 1, temperature: 5 }).next(LOGITS)).toBe(0)
  })

  it('keeps exactly k tokens, the lower ids among equals', () => {
    expectClose(frequencies({ topK: 2 }), [5 / 9, 4 / 9, 0, 0])
    expectClose(frequencies({ topK: 2 }, new Float32Array(5)), [0.5, 0.5, 0, 0, 0])
  })

  it('keeps the smallest set that reaches top_p', () => {
    expectClose(frequencies({ topP: 0.9 }), [5 / 9, 4 / 9, 0, 0])
    expectClose(frequencies({ topP: 0.91 }), [50 / 98, 40 / 98, 8 / 98, 0])
    expectClose(frequencies({ topP: 1e-9 }), [1, 0, 0, 0])
  })

  it('measures top_p against what top_k left', () => {
    // Of {5/9, 4/9} the first alone reaches 0.55; of the whole distribution it would not.
    expectClose(frequencies({ topK: 2, topP: 0.55 }), [1, 0, 0, 0])
    expectClose(frequencies({ topP: 0.55 }), [5 / 9, 4 / 9, 0, 0])
  })

  it('drops tokens below min_p of the most likely', () => {
    expectClose(frequencies({ minP: 0.1 }), [50 / 98, 40 / 98, 8 / 98, 0])
    expectClose(frequencies({ minP: 1 }), [1, 0, 0, 0])
  })

  it('agrees with a full sort for random logits, k, p and min_p', () => {
    const params = fc.record({
      temperature: fc.constantFrom(0.3, 1, 2),
      topK: fc.integer({ min: -1, max: 40 }),
      topP: fc.double({ min: 0.01, max: 1, noNaN: true }),
      minP: fc.double({ min: 0, max: 0.5, noNaN: true }),
    })
    const vocabulary = fc.array(fc.integer({ min: -8, max: 8 }), { minLength: 1, maxLength: 50 })
    fc.assert(
      fc.property(vocabulary, params, fc.integer(), (values, asked, seed) => {
        const logits = Float32Array.from(values)
        const allowed = allowedBySorting(values, asked)
        const drawing = sampler(asked, seed)
        for (let i = 0; i < 5; i++) expect(allowed.has(drawing.next(logits))).toBe(true)
      }),
      { seed: 11, numRuns: 300 },
    )
  })

  it('draws the same tokens from the same seed and others from another', () => {
    const logits = Float32Array.from({ length: 1000 }, (_, id) => Math.sin(id))
    const draw = (seed: number) => {
      const drawing = sampler({ topP: 0.95 }, seed)
      return Array.from({ length: 20 }, () => drawing.next(logits))
    }
    expect(draw(3)).toEqual(draw(3))
    expect(draw(3)).not.toEqual(draw(4))
  })

  it('makes seen tokens less likely by the repetition penalty, whatever their sign, and leaves the logits alone', () => {
    const logits = Float32Array.from([2, 1.5, -1])
    const drawing = sampler({ temperature: 0, repetitionPenalty: 2 })
    expect(drawing.next(logits)).toBe(0)
    drawing.observe(0)
    expect(drawing.next(logits)).toBe(1)
    expect([...logits]).toEqual([2, 1.5, -1])
    const negative = sampler({ temperature: 0, repetitionPenalty: 3 })
    negative.observePrompt([0])
    expect(negative.next(Float32Array.from([-1, -2]))).toBe(1)
  })

  it('takes presence and frequency penalties off what the answer holds, and leaves the prompt alone', () => {
    const logits = Float32Array.from([2, 1.5, 1])
    const drawing = sampler({ temperature: 0, presencePenalty: 0.4, frequencyPenalty: 0.2 })
    drawing.observePrompt([0])
    expect(drawing.next(logits)).toBe(0)
    drawing.observe(0) // 2 - 0.4 - 0.2 = 1.4
    expect(drawing.next(logits)).toBe(1)
    drawing.observe(1) // 1.5 - 0.6 = 0.9 < 1.4
    expect(drawing.next(logits)).toBe(0)
    const rewarded = sampler({ temperature: 0, presencePenalty: -2 })
    rewarded.observe(2)
    expect(rewarded.next(logits)).toBe(2)
  })

  it('adds biases, keeps to the mask and never draws what is banned', () => {
    const logits = new Float32Array(40)
    logits[3] = 5
    const mask = new Int32Array(2)
    mask[0] = 1 << 3
    mask[1] = 1 << (39 - 32)
    const greedy = sampler({ temperature: 0 })
    expect(greedy.next(logits, { bias: new Map([[7, 6]]) })).toBe(7)
    expect(greedy.next(logits, { bias: new Map([[7, 6]]), mask })).toBe(3)
    expect(greedy.next(logits, { mask, banned: [3] })).toBe(39)
    const drawing = sampler({ topP: 0.99 })
    for (let i = 0; i < 50; i++) expect([3, 39]).toContain(drawing.next(logits, { mask }))
    expect(() => greedy.next(logits, { mask: new Int32Array(2) })).toThrow()
  })

  it('stays finite for huge logits, tiny temperatures and masked tokens', () => {
    const logits = Float32Array.from([-Infinity, 3e38, -3e38, 2.9e38])
    for (const temperature of [1e-300, 1e-6, 1, 100]) {
      expect(sampler({ temperature, topP: 0.9 }).next(logits)).toBe(1)
      expect(sampler({ temperature }).next(logits)).toBe(1)
    }
    const onlyOne = Float32Array.from([-Infinity, -5, -Infinity])
    expect(frequencies({ topK: 3 }, onlyOne, 100)).toEqual([0, 1, 0])
  })

  it.each([
    ['NaN', [0, Number.NaN, 1]],
    ['+Infinity', [0, Infinity]],
    ['nothing but -Infinity', [-Infinity, -Infinity]],
    ['nothing', []],
  ])('refuses logits with %s', (_, values) => {
    expect(() => sampler({}).next(Float32Array.from(values))).toThrow(
      expect.objectContaining({ code: 'non_finite_logits' }),
    )
  })
})

describe('samplingParams', () => {
  it('completes a request from the defaults', () => {
    expect(samplingParams({ topK: 5, temperature: undefined })).toEqual({ ...DEFAULT_SAMPLING, topK: 5 })
  })

  it.each([
    ['temperature', { temperature: -0.1 }],
    ['temperature', { temperature: Number.NaN }],
    ['top_k', { topK: 1.5 }],
    ['top_k', { topK: -2 }],
    ['top_p', { topP: 0 }],
    ['top_p', { topP: 1.01 }],
    ['min_p', { minP: 2 }],
    ['repetition_penalty', { repetitionPenalty: 0 }],
  ])('refuses a wrong %s and names it', (param, asked) => {
    expect(() => samplingParams(asked)).toThrow(expect.objectContaining({ kind: 'invalid', param }))
  })
})

/** The tokens that may be drawn, by the definition: sort everything, then cut. A hair of slack for rounding. */
function allowedBySorting(
  values: number[],
  { temperature, topK, topP, minP }: Pick<SamplingParams, 'temperature' | 'topK' | 'topP' | 'minP'>,
): Set<number> {
  const max = Math.max(...values)
  let sorted = values
    .map((value, id) => ({ id, weight: Math.exp((value - max) / temperature) }))
    .sort((a, b) => b.weight - a.weight || a.id - b.id)
  if (topK > 0) sorted = sorted.slice(0, topK)
  const mass = sorted.reduce((sum, { weight }) => sum + weight, 0)
  const allowed = new Set<number>()
  let before = 0
  for (const { id, weight } of sorted) {
    if (allowed.size > 0 && (before > topP * mass * (1 + 1e-9) || weight < minP)) break
    allowed.add(id)
    before += weight
  }
  return allowed
}
