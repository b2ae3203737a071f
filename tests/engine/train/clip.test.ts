import { describe, expect, it } from 'vitest'
import { clipGradients, globalNorm } from '../../../engine/train/clip.ts'
import reference from '../../parity/train-reference.json' with { type: 'json' }

describe('clipping', () => {
  it.each(reference.clip)('to $max_norm scales as torch does, and returns the norm before', (example) => {
    const gradients = example.gradients.map((values) => Float32Array.from(values))
    expect(clipGradients(gradients, example.max_norm) / example.norm).toBeCloseTo(1, 6)
    for (const [index, gradient] of gradients.entries()) {
      for (const [i, value] of gradient.entries()) {
        const wanted = example.clipped[index]![i]!
        expect(Math.abs(value - wanted)).toBeLessThanOrEqual(1e-6 * Math.abs(wanted))
      }
    }
  })

  it('leaves gradients alone when max_grad_norm is 0', () => {
    const gradients = [Float32Array.of(3, 4)]
    expect(clipGradients(gradients, 0)).toBe(5)
    expect(globalNorm(gradients)).toBe(5)
  })

  it('does not overflow where a sum in float32 would', () => {
    expect(globalNorm([Float32Array.of(3e30, 4e30)])).toBeCloseTo(5e30, -25)
  })
})
