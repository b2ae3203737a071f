import { describe, expect, it } from 'vitest'
import { plotCurve } from '../../../engine/train/plot.ts'

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
