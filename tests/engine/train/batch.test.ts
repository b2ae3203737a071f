import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import '../../fixed-seed.ts'
import type { EncodedExample } from '../../../engine/text/conversation.ts'
import { collate, trainedTokenCount } from '../../../engine/train/batch.ts'

const example = (inputIds: number[], labels: number[]): EncodedExample => ({
  inputIds: Int32Array.from(inputIds),
  labels: Int32Array.from(labels),
})

describe('collate', () => {
  it('pads on the right and shifts labels by one', () => {
    const batch = collate([example([5, 6, 7], [-100, 6, 7]), example([8, 9], [8, 9])], 0)
    expect(batch).toEqual({
      rows: 2,
      length: 3,
      inputIds: BigInt64Array.of(5n, 6n, 7n, 8n, 9n, 0n),
      trainedPositions: BigInt64Array.of(0n, 1n, 3n),
      labels: BigInt64Array.of(6n, 7n, 9n),
      tokens: 5,
    })
  })

  it('allows rows without any trained label', () => {
    const batch = collate([example([1], [1]), example([2, 3], [-100, -100])], 0)
    expect(batch.trainedPositions).toHaveLength(0)
    expect(batch.labels).toHaveLength(0)
  })

  it('predicts each trained token from the position before it', () => {
    const row = fc
      .array(fc.tuple(fc.integer({ min: 1, max: 99 }), fc.boolean()), { maxLength: 20 })
      .map((tokens) =>
        example(
          tokens.map(([id]) => id),
          tokens.map(([id, learned]) => (learned ? id : -100)),
        ),
      )
    fc.assert(
      fc.property(fc.array(row, { minLength: 1, maxLength: 6 }), (rows) => {
        const batch = collate(rows, 0)
        expect(batch.labels).toHaveLength(rows.reduce((sum, each) => sum + trainedTokenCount(each), 0))
        for (const [index, position] of batch.trainedPositions.entries()) {
          expect(batch.inputIds[Number(position) + 1]).toBe(batch.labels[index])
          expect((Number(position) + 1) % batch.length).not.toBe(0)
        }
      }),
    )
  })
})
