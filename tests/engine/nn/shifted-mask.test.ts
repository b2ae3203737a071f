import { describe, expect, it } from 'vitest'
import { shiftedMask } from '../../../engine/nn/masks.ts'
import { padBatch } from '../../../engine/train/pad-batch.ts'

/** Who sees whom by the paper's own steps: roll the positions, cut them into four groups, look back inside a group. */
function pairsByRolling(length: number, shift: number): Set<string> {
  const rolled = Array.from({ length }, (_, place) => (place + shift) % length)
  const pairs = new Set<string>()
  for (let group = 0; group < 4; group++) {
    const members = rolled.slice((group * length) / 4, ((group + 1) * length) / 4)
    for (const [i, row] of members.entries())
      for (const seen of members.slice(0, i + 1)) pairs.add(`${row},${seen}`)
  }
  return pairs
}

describe("LongLoRA's mask", () => {
  it.each([8, 16, 40])(
    'parts %i tokens into four groups, half a group on for the second half of the heads',
    (length) => {
      const { data, dims } = shiftedMask(length, 6, 3)
      expect(dims).toEqual([1, 3, 2, length, length])
      for (let head = 0; head < 6; head++) {
        const expected = pairsByRolling(length, head < 3 ? 0 : length / 8)
        const seen = new Set<string>()
        for (let row = 0; row < length; row++) {
          for (let column = 0; column < length; column++) {
            if (data[(head * length + row) * length + column] === 0) seen.add(`${row},${column}`)
          }
        }
        expect(seen).toEqual(expected)
      }
    },
  )
})

describe('padBatch', () => {
  it('lengthens rows and moves the trained places with them', () => {
    const batch = {
      rows: 2,
      length: 3,
      inputIds: BigInt64Array.from([1n, 2n, 3n, 4n, 5n, 6n]),
      trainedPositions: BigInt64Array.from([1n, 5n]),
      labels: BigInt64Array.from([3n, 9n]),
      tokens: 6,
    }
    const padded = padBatch(batch, 4)
    expect([...padded.inputIds]).toEqual([1n, 2n, 3n, 0n, 4n, 5n, 6n, 0n])
    expect([...padded.trainedPositions]).toEqual([1n, 6n])
    expect(padded.length).toBe(4)
    expect(padBatch(padded, 4)).toBe(padded)
  })
})
