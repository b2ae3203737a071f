import type { RopeScaling } from '../nn/config.ts'
import { malformedConfig, type RawConfig, unsupportedField } from './raw-config.ts'
import type { RawRope } from './rope-config.ts'

interface ScalingOptions {
  /** Pairs of dimensions that rotate. */
  pairs: number
  longRopeAlone: boolean
}

/**
 * The scaling that a rope names, with transformers' defaults (modeling_rope_utils.py). 'dynamic' stretches contexts beyond
 * max_position_embeddings alone.
 * @throws EngineError unsupported for another, invalid for missing numbers.
 */
export function parseScaling(
  raw: RawConfig,
  field: string,
  rope: RawRope,
  { pairs, longRopeAlone }: ScalingOptions,
): RopeScaling | null {
  const named = rope.rope_type ?? rope.type ?? 'default'
  const kind = longRopeAlone && (named === 'su' || named === 'yarn') ? 'longrope' : named
  const required = (name: keyof RawRope & string): number => {
    const value = rope[name]
    if (typeof value !== 'number') throw malformedConfig(raw, `rope type '${kind}' needs ${field}.${name}`)
    return value
  }
  switch (kind) {
    case 'default':
      return null
    case 'linear':
      return { kind, factor: required('factor') }
    case 'dynamic':
      required('factor')
      return { kind, reach: contexts(raw, rope).longest }
    case 'llama3':
      return {
        kind,
        factor: required('factor'),
        lowFrequencyFactor: required('low_freq_factor'),
        highFrequencyFactor: required('high_freq_factor'),
        originalMaxPositions: required('original_max_position_embeddings'),
      }
    case 'yarn':
      return yarn(raw, rope)
    case 'longrope':
      return longRope(raw, field, rope, pairs)
    default:
      throw unsupportedField(
        raw,
        `${field}.rope_type`,
        kind,
        "'default', 'linear', 'dynamic', 'llama3', 'yarn' and 'longrope' are",
      )
  }
}

/** max_position_embeddings, and how much of it the model was trained on: at the top of the file, or in the rope. */
function contexts(raw: RawConfig, rope: RawRope): { longest: number; original: number } {
  const number = (value: unknown) => (typeof value === 'number' && value > 0 ? value : undefined)
  const longest = number(raw.max_position_embeddings)
  const original =
    number(raw.original_max_position_embeddings) ?? rope.original_max_position_embeddings ?? longest
  if (original === undefined) {
    throw malformedConfig(raw, 'its rope scaling needs original_max_position_embeddings')
  }
  return { longest: longest ?? original, original }
}

/** YaRN (arXiv:2309.00071): attention is sharpened by 0.1 · ln(factor) + 1, or the ratio of two such terms with mscale. */
function yarn(raw: RawConfig, rope: RawRope): RopeScaling {
  const { longest, original } = contexts(raw, rope)
  const factor = rope.factor ?? longest / original
  const sharpened = (scale: number) => (factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1)
  const { mscale, mscale_all_dim: everywhere } = rope
  const attention = mscale && everywhere ? sharpened(mscale) / sharpened(everywhere) : sharpened(1)
  return {
    kind: 'yarn',
    factor,
    originalMaxPositions: original,
    betaFast: rope.beta_fast ?? 32,
    betaSlow: rope.beta_slow ?? 1,
    truncate: rope.truncate ?? true,
    attentionFactor: rope.attention_factor ?? attention,
  }
}

/** LongRoPE (arXiv:2402.13753), as Phi-3 has it: attention is scaled by √(1 + ln(factor) / ln(original)). */
function longRope(raw: RawConfig, field: string, rope: RawRope, pairs: number): RopeScaling {
  const { longest, original } = contexts(raw, rope)
  const factors = (name: 'short_factor' | 'long_factor') => {
    const values = rope[name]
    if (values?.length === pairs) return values
    throw malformedConfig(raw, `${field}.${name} needs ${pairs} numbers, not ${values?.length ?? 'none'}`)
  }
  const factor = rope.factor ?? longest / original
  const attention = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original))
  return {
    kind: 'longrope',
    shortFactors: factors('short_factor'),
    longFactors: factors('long_factor'),
    reach: original,
    attentionFactor: rope.attention_factor ?? attention,
  }
}
