import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import '../fixed-seed.ts'
import { createRandom, epochOrder, restoreRandom } from '../../engine/random.ts'

describe('createRandom', () => {
  it('repeats its sequence for a seed and differs for other seeds and streams', () => {
    const take = (seed: number, stream?: number) => {
      const random = createRandom(seed, stream)
      return Array.from({ length: 8 }, () => random.nextUint32())
    }
    expect(take(42)).toEqual(take(42))
    const all = [take(42), take(43), take(0), take(42, 1), take(43, 1)].flat()
    expect(new Set(all).size).toBe(all.length)
  })

  it('is xoshiro128** (the first outputs from the state 1, 2, 3, 4)', () => {
    const random = restoreRandom([1, 2, 3, 4])
    expect([random.nextUint32(), random.nextUint32(), random.nextUint32()]).toEqual([11520, 0, 5927040])
  })

  it('goes on exactly from a saved state', () => {
    fc.assert(
      fc.property(fc.integer(), fc.nat(50), (seed, skip) => {
        const random = createRandom(seed)
        for (let i = 0; i < skip; i++) random.nextGaussian()
        const restored = restoreRandom(JSON.parse(JSON.stringify(random.state())))
        expect(restored.next()).toBe(random.next())
        expect(restored.nextGaussian()).toBe(random.nextGaussian())
      }),
    )
  })

  it('has uniform integers and normal numbers', () => {
    const random = createRandom(7)
    const counts = [0, 0, 0]
    let sum = 0
    let squares = 0
    const n = 30_000
    for (let i = 0; i < n; i++) {
      counts[random.nextInt(3)]!++
      const value = random.nextGaussian()
      sum += value
      squares += value * value
    }
    for (const count of counts) expect(Math.abs(count / n - 1 / 3)).toBeLessThan(0.01)
    expect(Math.abs(sum / n)).toBeLessThan(0.02)
    expect(Math.abs(squares / n - 1)).toBeLessThan(0.03)
  })
})

describe('epochOrder', () => {
  it('is a permutation that depends on seed and epoch alone', () => {
    fc.assert(
      fc.property(fc.integer(), fc.nat(1000), fc.nat(200), (seed, epoch, count) => {
        const order = epochOrder(seed, epoch, count)
        expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, index) => index))
        expect(epochOrder(seed, epoch, count)).toEqual(order)
      }),
    )
  })

  it('differs from epoch to epoch', () => {
    expect(epochOrder(42, 0, 50)).not.toEqual(epochOrder(42, 1, 50))
  })
})
