import { describe, expect, it } from 'vitest'
import { plotCurve, smooth } from '../../../engine/train/plot.ts'

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

describe('a picture', () => {
  const size = (png: Uint8Array) => {
    const view = new DataView(png.buffer, png.byteOffset)
    return [view.getUint32(16), view.getUint32(20)]
  }
  const options = { title: 'loss of <a & b>', label: 'loss' }

  it.each([
    ['many points', [1, 2, 3, 4], [3, 1.5, 2, 0.5]],
    ['one point', [10], [2]],
    ['equal points', [1, 2], [0, 0]],
    ['very small values', [1, 2], [1e-12, 2e-12]],
    ['very large values', [1, 2], [1e12, 3e12]],
    ['a hole', [1, 2, 3], [1, Number.NaN, 2]],
  ])('is drawn of %s', (_, steps, values) => {
    expect(size(plotCurve({ steps, values }, options)!)).toEqual([960, 640])
  })

  it('is not drawn of nothing', () => {
    expect(plotCurve({ steps: [1], values: [Number.NaN] }, options)).toBeUndefined()
  })
})
