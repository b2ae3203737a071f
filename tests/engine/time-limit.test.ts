import { describe, expect, it } from 'vitest'
import { withTimeLimit } from '../../engine/time-limit.ts'

describe('withTimeLimit', () => {
  const late = () => new Error('late')

  it('interrupts a regular expression that backtracks', () => {
    expect(() => withTimeLimit(() => /^(a+)+$/.test(`${'a'.repeat(40)}b`), 20, late)).toThrow('late')
  })

  it('interrupts work that does not end, and passes on what ends or throws', () => {
    const endless = () => {
      for (;;) {}
    }
    expect(() => withTimeLimit(endless, 20, late)).toThrow('late')
    expect(withTimeLimit(() => 7, 1000, late)).toBe(7)
    const broken = () => {
      throw new RangeError('mine')
    }
    expect(() => withTimeLimit(broken, 1000, late)).toThrow(RangeError)
  })
})
