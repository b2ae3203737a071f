import { describe, expect, it } from 'vitest'
import { PrefillPace } from '../../../engine/generate/prefill-pace.ts'

/** A pace that has learned from runs that take `milliseconds` for each token and for 16 more. */
function learned(milliseconds: number): PrefillPace {
  const pace = new PrefillPace()
  for (let run = 0; run < 30; run++) pace.measured(64, milliseconds * (64 + 16))
  return pace
}

describe('PrefillPace', () => {
  it('takes chunks that running streams can bear, larger ones when nobody waits', () => {
    const chunk = learned(0.5).chunk(2000, true)
    expect(0.5 * (chunk + 16)).toBeLessThanOrEqual(65)
    expect(0.5 * (chunk + 16)).toBeGreaterThan(55)
    expect(learned(0.5).chunk(2000, false)).toBeGreaterThan(300)
  })

  it('leaves time for the step of the streams', () => {
    const pace = learned(0.5)
    const alone = pace.chunk(2000, true)
    pace.stepped(30)
    const beside = pace.chunk(2000, true)
    expect(0.5 * (alone - beside)).toBeGreaterThan(25)
    expect(0.5 * (beside + 16) + 30).toBeLessThanOrEqual(65)
    pace.stepped(500)
    expect(pace.chunk(2000, true)).toBe(16)
  })

  it('cuts what is left evenly', () => {
    expect(learned(0.5).chunk(145, true)).toBe(73)
    expect(learned(0.5).chunk(72, true)).toBe(72)
  })

  it('takes large chunks again after a time when the machine was busy', () => {
    const pace = learned(20)
    expect(pace.chunk(160, true)).toBe(16)
    for (let run = 0; run < 30; run++) pace.measured(16, 0.5 * (16 + 16))
    expect(pace.chunk(160, true)).toBe(80)
  })
})
