import { EngineError } from '../errors.ts'
import type { GgufMetadata } from './metadata.ts'

/** Holds the frequency factors of Llama 3's rope scaling; config.json states the rule that they follow instead. */
export const ROPE_FACTORS = 'rope_freqs.weight'

interface RotarySizes {
  headDim: number
  ropeTheta: number
}

/** rope_scaling of config.json: none, linear, YaRN, or Llama 3's, which GGUF writes as factors. */
export function readRopeScaling(
  metadata: GgufMetadata,
  name: string,
  sizes: RotarySizes,
  factors: Float32Array | undefined,
): Record<string, unknown> | null {
  const kind = metadata.text(`${name}.rope.scaling.type`) ?? 'none'
  const factor = metadata.number(`${name}.rope.scaling.factor`)
  if (factors) return llama3Scaling(metadata, sizes, factors)
  if (kind === 'none' || factor === undefined || factor === 0 || factor === 1) return null
  if (kind === 'linear' && factor > 0) return { rope_type: 'linear', type: 'linear', factor }
  if (kind === 'yarn' && factor > 0) return yarnScaling(metadata, name, factor)
  throw metadata.unsupported(
    `${name}.rope.scaling.type`,
    kind,
    "'none', 'linear', 'yarn' and Llama 3's factors are",
  )
}

/** YaRN's fields; llama.cpp multiplies attn_factor by 0.1 · ln(factor) + 1, which is all of transformers' attention_factor. */
function yarnScaling(metadata: GgufMetadata, name: string, factor: number): Record<string, unknown> {
  const number = (key: string) => metadata.number(`${name}.rope.scaling.${key}`)
  return {
    rope_type: 'yarn',
    type: 'yarn',
    factor,
    original_max_position_embeddings:
      metadata.count(`${name}.rope.scaling.original_context_length`) ??
      metadata.require(`${name}.context_length`, (key) => metadata.count(key)),
    beta_fast: number('yarn_beta_fast') ?? 32,
    beta_slow: number('yarn_beta_slow') ?? 1,
    attention_factor: (number('attn_factor') ?? 1) * (1 + 0.1 * Math.log(factor)),
  }
}

/** The lengths and bounds that every Llama 3 model has; only the factor differs between them. */
const LLAMA3 = { low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 }

/**
 * Finds the rule behind rope factors (transformers, _compute_llama3_parameters): wavelengths below
 * original/high keep their frequency, those above original/low are divided by `factor`, between them it is smooth.
 */
function llama3Scaling(
  metadata: GgufMetadata,
  { headDim, ropeTheta }: RotarySizes,
  factors: Float32Array,
): Record<string, unknown> {
  const factor = factors.reduce((most, value) => Math.max(most, value), 1)
  const { low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: original } = LLAMA3
  const expected = Array.from({ length: headDim / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * ropeTheta ** ((2 * i) / headDim)
    if (wavelength < original / high) return 1
    if (wavelength > original / low) return factor
    const smooth = (original / wavelength - low) / (high - low)
    return 1 / ((1 - smooth) / factor + smooth)
  })
  const fits = expected.every((value, i) => Math.abs(factors[i]! - value) <= 1e-4 * value)
  if (!fits) {
    throw new EngineError(
      'unsupported',
      'gguf_unsupported',
      `${metadata.path}: ${ROPE_FACTORS} does not follow Llama 3's rule, and other rope scalings are not supported`,
    )
  }
  return { rope_type: 'llama3', factor, ...LLAMA3 }
}
