import { describe, expect, it } from 'vitest'
import { createRandom } from '../../../engine/random.ts'
import { isFlat, smooth } from '../../../engine/train/curve.ts'

describe('smoothing', () => {
  it('follows w = 1.8 (1 / (1 + e^(-0.05 n)) - 0.5), worked out by hand', () => {
    // n = 4: e^-0.2 = 0.8187307531, 1 / 1.8187307531 = 0.5498339973, w = 0.0897011952.
    const [a, b, c, d] = smooth([4, 2, 3, 1])
    expect(a).toBeCloseTo(4, 12)
    expect(b).toBeCloseTo(0.0897011952 * 4 + 0.9102988048 * 2, 8) // 2.1794023904
    expect(c).toBeCloseTo(0.0897011952 * 2.1794023904 + 0.9102988048 * 3, 8) // 2.9263914134
    expect(d).toBeCloseTo(0.0897011952 * 2.9263914134 + 0.9102988048 * 1, 8) // 1.1728003966
  })

  it('smooths more the more points there are, towards a weight of 0.9', () => {
    const values = Array.from({ length: 1000 }, (_, i) => (i === 0 ? 1 : 0))
    expect(smooth(values)[1]).toBeCloseTo(0.9, 6)
    expect(smooth([])).toEqual([])
  })
})

describe('a flat curve', () => {
  const noise = (seed: number, size: number) => {
    const random = createRandom(seed)
    return () => size * random.nextGaussian()
  }
  const points = (count: number, loss: (step: number) => number) =>
    Array.from({ length: count }, (_, i) => loss(i))

  it('is one that has fallen and then stays where it is, noise or not', () => {
    for (const seed of [1, 2, 3]) {
      const shake = noise(seed, 0.02)
      expect(isFlat(points(200, (step) => 1 + 2 * Math.exp(-step / 15) + shake()))).toBe(true)
    }
    expect(isFlat(points(40, () => 0.7))).toBe(true)
  })

  it('is one that rises again', () => {
    expect(isFlat(points(60, (step) => 1 + ((step - 30) / 30) ** 2))).toBe(true)
  })

  it('is none that still falls, slowly or fast', () => {
    expect(isFlat(points(100, (step) => 3 - step / 50))).toBe(false)
    expect(isFlat(points(100, (step) => 2 / (1 + step / 20)))).toBe(false)
    for (const seed of [1, 2, 3]) {
      const shake = noise(seed, 0.05)
      expect(isFlat(points(100, (step) => 3 - Math.log(1 + step) / 3 + shake()))).toBe(false)
    }
  })

  it('needs twenty points before anything is said', () => {
    expect(isFlat(points(19, () => 1))).toBe(false)
    expect(isFlat(points(20, () => 1))).toBe(true)
  })
})
