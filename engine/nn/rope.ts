import { EngineError } from '../errors.ts'
import type { Value } from '../graph/values.ts'
import type { RopeConfig, RopeScaling } from './config.ts'
import type { ModelBuilder } from './model-builder.ts'

/** Tables of cos and sin, [positions, rotaryDim / 2] each, times a factor where one was asked for. */
export interface RotaryTables {
  readonly rope: RopeConfig
  readonly cos: Value
  readonly sin: Value
}

/**
 * scale · cos and scale · sin, times the scaling's attention factor, of position · frequency as graph constants (RoFormer, arXiv:2104.09864). Computed in
 * float32 steps as transformers does, so that long contexts agree with it to the last bit that matters.
 */
export function rotaryTables(m: ModelBuilder, rope: RopeConfig, positions: number, scale = 1): RotaryTables {
  refuseBeyond(rope, positions)
  const frequencies = rotaryFrequencies(rope)
  const half = frequencies.length
  const amplitude = scale * attentionFactor(rope)
  const cos = new Float32Array(positions * half)
  const sin = new Float32Array(positions * half)
  for (let position = 0; position < positions; position++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * frequencies[i]!)
      cos[position * half + i] = amplitude * Math.cos(angle)
      sin[position * half + i] = amplitude * Math.sin(angle)
    }
  }
  return {
    rope,
    cos: m.g.constant('float32', [positions, half], cos),
    sin: m.g.constant('float32', [positions, half], sin),
  }
}

/** @throws EngineError `unsupported` for positions that a scaling stretches by the length of the context. */
function refuseBeyond({ scaling }: RopeConfig, positions: number): void {
  if (scaling === null || !('reach' in scaling) || positions <= scaling.reach) return
  const message =
    `Sequences of up to ${positions} tokens are asked for; beyond ${scaling.reach} this model's rope scaling ` +
    `(${scaling.kind}) changes with the length of the text, which this engine does not do. Lower cutoff_len.`
  throw new EngineError('unsupported', 'context_length_exceeded', message, { param: 'cutoff_len' })
}

/** θ^(-2i/d), stretched as the config says. */
export function rotaryFrequencies(rope: RopeConfig): Float32Array {
  const { theta, scaling, rotaryDim } = rope
  const ramp = scaling?.kind === 'yarn' ? yarnRamp(rope, scaling) : undefined
  return Float32Array.from({ length: rotaryDim / 2 }, (_, i) => {
    const exponent = Math.fround((2 * i) / rotaryDim)
    const wave = Math.fround(theta ** exponent)
    const frequency = Math.fround(1 / wave)
    if (scaling === null || scaling.kind === 'dynamic') return frequency
    if (scaling.kind === 'longrope') return 1 / Math.fround(Math.fround(scaling.shortFactors[i]!) * wave)
    if (scaling.kind !== 'yarn') return scaleFrequency(frequency, scaling)
    const kept = 1 - ramp!(i)
    return Math.fround(1 / Math.fround(scaling.factor * wave)) * (1 - kept) + frequency * kept
  })
}

/** What a scaling multiplies cos and sin by. */
function attentionFactor({ scaling }: RopeConfig): number {
  return scaling && 'attentionFactor' in scaling ? scaling.attentionFactor : 1
}

/**
 * YaRN (arXiv:2309.00071, section 3.2): frequencies that turn more than betaFast times over the original context stay (0), those
 * that turn less than betaSlow times are divided by the factor (1), and between the dimensions where these lie a ramp leads
 * from one to the other. The dimension that turns r times: d · ln(original / 2πr) / (2 · ln θ).
 */
function yarnRamp(
  { theta, rotaryDim }: RopeConfig,
  { betaFast, betaSlow, originalMaxPositions, truncate }: Extract<RopeScaling, { kind: 'yarn' }>,
): (pair: number) => number {
  const place = (rotations: number) =>
    (rotaryDim * Math.log(originalMaxPositions / (rotations * 2 * Math.PI))) / (2 * Math.log(theta))
  const low = Math.max(truncate ? Math.floor(place(betaFast)) : place(betaFast), 0)
  const high = Math.min(truncate ? Math.ceil(place(betaSlow)) : place(betaSlow), rotaryDim - 1)
  const width = low === high ? 0.001 : high - low
  return (pair) => Math.min(1, Math.max(0, Math.fround((pair - low) / width)))
}

/**
 * linear: f / factor. llama3: wavelengths above original / low_freq_factor are divided by factor, those below
 * original / high_freq_factor stay, and between them the two are blended (Llama 3.1's release, `apply_scaling`).
 */
function scaleFrequency(
  frequency: number,
  scaling: Extract<RopeScaling, { kind: 'linear' | 'llama3' }>,
): number {
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
