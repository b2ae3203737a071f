import type { Value } from '../graph/values.ts'
import type { RopeConfig, RopeScaling } from '../models/config.ts'
import type { ModelBuilder } from './model-builder.ts'

/** Tables of cos and sin, [positions, rotaryDim / 2] each, times a factor where one was asked for. */
export interface RotaryTables {
  readonly rope: RopeConfig
  readonly cos: Value
  readonly sin: Value
}

/**
 * scale · cos and scale · sin of position · frequency as graph constants (RoFormer, arXiv:2104.09864). Computed in
 * float32 steps as transformers does, so that long contexts agree with it to the last bit that matters.
 */
export function rotaryTables(m: ModelBuilder, rope: RopeConfig, positions: number, scale = 1): RotaryTables {
  const frequencies = rotaryFrequencies(rope)
  const half = frequencies.length
  const cos = new Float32Array(positions * half)
  const sin = new Float32Array(positions * half)
  for (let position = 0; position < positions; position++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * frequencies[i]!)
      cos[position * half + i] = scale * Math.cos(angle)
      sin[position * half + i] = scale * Math.sin(angle)
    }
  }
  return {
    rope,
    cos: m.g.constant('float32', [positions, half], cos),
    sin: m.g.constant('float32', [positions, half], sin),
  }
}

/** θ^(-2i/d), stretched as the config says. */
export function rotaryFrequencies({ theta, scaling, rotaryDim }: RopeConfig): Float32Array {
  return Float32Array.from({ length: rotaryDim / 2 }, (_, i) => {
    const exponent = Math.fround((2 * i) / rotaryDim)
    const frequency = Math.fround(1 / Math.fround(theta ** exponent))
    return scaling ? scaleFrequency(frequency, scaling) : frequency
  })
}

/**
 * linear: f / factor. llama3: wavelengths above original / low_freq_factor are divided by factor, those below
 * original / high_freq_factor stay, and between them the two are blended (Llama 3.1's release, `apply_scaling`).
 */
function scaleFrequency(frequency: number, scaling: RopeScaling): number {
  if (scaling.kind === 'linear') return frequency / scaling.factor
  const { factor, lowFrequencyFactor, highFrequencyFactor, originalMaxPositions } = scaling
  const wavelength = (2 * Math.PI) / frequency
  if (wavelength > originalMaxPositions / lowFrequencyFactor) return frequency / factor
  if (wavelength < originalMaxPositions / highFrequencyFactor) return frequency
  const blend =
    (originalMaxPositions / wavelength - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor)
  return ((1 - blend) * frequency) / factor + blend * frequency
}

/** Rotates [batch, seq, heads·headDim] or [batch, heads, seq, headDim] by each token's position. */
export function rotate(m: ModelBuilder, x: Value, heads: number, { rope, cos, sin }: RotaryTables): Value {
  const headDim = x.shape.length === 4 ? x.shape[3] : (x.shape[2] as number) / heads
  const partial = headDim === rope.rotaryDim ? {} : { partial: { heads, rotated: rope.rotaryDim } }
  return m.g.RotaryEmbedding(x, m.positionIds, cos, sin, {
    interleaved: rope.interleaved ? 1 : 0,
    ...partial,
  })
}
