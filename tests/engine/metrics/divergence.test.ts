import { describe, expect, it } from 'vitest'
import { RunningDivergence } from '../../../engine/metrics/divergence.ts'
import { gaussian } from '../weights/tiny-model.ts'

const [ROWS, VOCABULARY, PART] = [5, 23, 8]
const reference = gaussian(ROWS * VOCABULARY, 3).map((logit) => 4 * logit)
const other = reference.map((logit, i) => logit + Math.sin(i))
const labels = [0, 7, 8, 22, 3]

/** Sums by the definition, in double precision. */
function definition() {
  const sums = { positions: ROWS, referenceLoss: 0, otherLoss: 0, divergence: 0, sameTop: 0 }
  for (const [row, label] of labels.entries()) {
    const [p, q] = [reference, other].map((logits) => {
      const own = [...logits.subarray(row * VOCABULARY, (row + 1) * VOCABULARY)]
      const logSum = Math.log(own.reduce((sum, logit) => sum + Math.exp(logit), 0))
      return own.map((logit) => logit - logSum)
    }) as [number[], number[]]
    sums.referenceLoss -= p[label]!
    sums.otherLoss -= q[label]!
    sums.divergence += p.reduce((sum, logP, v) => sum + Math.exp(logP) * (logP - q[v]!), 0)
    if (p.indexOf(Math.max(...p)) === q.indexOf(Math.max(...q))) sums.sameTop++
  }
  return sums
}

/** Columns [first, first + PART) with zeros behind the end, as the last part has them. */
function part(logits: Float32Array, first: number): Float32Array {
  return Float32Array.from({ length: ROWS * PART }, (_, i) => {
    const column = first + (i % PART)
    return column < VOCABULARY ? logits[Math.floor(i / PART) * VOCABULARY + column]! : 0
  })
}

describe('RunningDivergence', () => {
  it.each([
    ['in order', [0, 8, 16]],
    ['in another order', [16, 0, 8]],
  ])('sums parts of the vocabulary %s to what the definition gives', (_, order) => {
    const running = new RunningDivergence(labels)
    for (const first of order) {
      const place = { row: 0, token: first, count: Math.min(PART, VOCABULARY - first), stride: PART }
      running.add(part(reference, first), part(other, first), place)
    }
    const [sums, expected] = [running.sums(), definition()]
    expect(sums.sameTop).toBe(expected.sameTop)
    expect(sums.positions).toBe(expected.positions)
    for (const key of ['referenceLoss', 'otherLoss', 'divergence'] as const) {
      expect(sums[key]).toBeCloseTo(expected[key], 5)
    }
  })

  it('finds no divergence between equal logits', () => {
    const running = new RunningDivergence(labels)
    running.add(reference, reference, { row: 0, token: 0, count: VOCABULARY, stride: VOCABULARY })
    expect(running.sums().divergence).toBeCloseTo(0, 12)
  })
})
