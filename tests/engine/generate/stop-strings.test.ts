import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { StopMatcher } from '../../../engine/generate/stop-strings.ts'

function run(stops: string[], pieces: string[]): { deltas: string[]; stopped: boolean } {
  const matcher = new StopMatcher(stops)
  const deltas: string[] = []
  for (const piece of pieces) deltas.push(matcher.push(piece))
  const { stopped } = matcher
  deltas.push(matcher.end())
  return { deltas, stopped }
}

const letters = fc.string({ unit: fc.constantFrom('a', 'b', '😀'), maxLength: 12 })
const stops = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', '😀'), minLength: 1, maxLength: 4 }), {
  maxLength: 4,
})

describe('StopMatcher', () => {
  it('finds a stop string that spans pieces and leaves it out', () => {
    expect(run(['END'], ['one E', 'N', 'D two'])).toEqual({ deltas: ['one ', '', '', ''], stopped: true })
  })

  it('lets go of what turned out not to be a stop string', () => {
    expect(run(['END'], ['one E', 'N', 'Z'])).toEqual({ deltas: ['one ', '', 'ENZ', ''], stopped: false })
  })

  it('hands out at the end what was held back', () => {
    expect(run(['END'], ['EN']).deltas).toEqual(['', 'EN'])
  })

  it('ends at the stop string that is complete first, and says nothing after it', () => {
    expect(run(['abcd', 'bc'], ['abcd', 'more'])).toEqual({ deltas: ['a', '', ''], stopped: true })
    expect(run(['bc', 'abc'], ['abc']).deltas.join('')).toBe('')
  })

  it('refuses an empty stop string', () => {
    expect(() => new StopMatcher(['x', ''])).toThrow(expect.objectContaining({ param: 'stop' }))
  })

  it('never lets a stop string out, whatever the pieces', () => {
    fc.assert(
      fc.property(fc.array(letters), stops, (pieces, list) => {
        const text = run(list, pieces).deltas.join('')
        for (const stop of list) expect(text.includes(stop)).toBe(false)
      }),
      { seed: 5, numRuns: 500 },
    )
  })

  it('gives the same text however it is cut into pieces', () => {
    fc.assert(
      fc.property(fc.array(letters), stops, (pieces, list) => {
        const inPieces = run(list, pieces)
        const whole = run(list, [...pieces.join('')])
        const atOnce = run(list, [pieces.join('')])
        expect(inPieces.deltas.join('')).toBe(whole.deltas.join(''))
        expect(atOnce.deltas.join('')).toBe(whole.deltas.join(''))
        expect(inPieces.stopped).toBe(whole.stopped)
      }),
      { seed: 6, numRuns: 500 },
    )
  })

  it('holds back no more than the beginning of a stop string', () => {
    fc.assert(
      fc.property(fc.array(letters), stops, (pieces, list) => {
        const { deltas, stopped } = run(list, pieces)
        if (stopped) return
        expect(deltas.join('')).toBe(pieces.join(''))
        const held = deltas.at(-1)!
        if (held !== '') expect(list.some((stop) => stop.startsWith(held))).toBe(true)
      }),
      { seed: 7, numRuns: 500 },
    )
  })
})
