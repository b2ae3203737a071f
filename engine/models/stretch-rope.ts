import { EngineError } from '../errors.ts'
import { familyOf } from './index.ts'
import type { RawConfig } from './raw-config.ts'

/** The scalings that LLaMA-Factory's field rope_scaling names. */
export const STRETCHES = ['linear', 'dynamic', 'yarn', 'llama3'] as const
type Stretch = (typeof STRETCHES)[number]

/**
 * What config.json says instead when a model is to read `length` tokens, by LLaMA-Factory's rule (model_utils/rope.py): a
 * scaling whose factor is the smallest whole number of its context lengths that reach that far; undefined where it reaches
 * that far already.
 *
 * @throws EngineError `unsupported` for a model whose config has no such field, or whose family knows no such scaling.
 */
export function stretchedRope(
  raw: RawConfig,
  stretch: Stretch,
  length: number,
): Record<string, unknown> | undefined {
  const old = raw.rope_parameters ?? raw.rope_scaling
  const given = typeof old === 'object' && old !== null ? (old as Record<string, unknown>) : {}
  const context = given.original_max_position_embeddings ?? raw.max_position_embeddings
  if (typeof context !== 'number' || 'full_attention' in given || 'rope_local_base_freq' in raw) {
    throw new EngineError(
      'unsupported',
      'unsupported_model',
      `rope_scaling stretches models with one rope and max_position_embeddings, which this ${raw.model_type} is not.`,
      { param: 'rope_scaling' },
    )
  }
  if (length <= context) return undefined
  const factor = Math.ceil(length / context)
  const scaling = {
    rope_type: stretch,
    factor,
    ...(stretch === 'linear' ? {} : { original_max_position_embeddings: context }),
    ...(stretch === 'llama3' ? { low_freq_factor: 1, high_freq_factor: 4 } : {}),
  }
  const { rope_theta: theta, partial_rotary_factor: partial } = given
  const kept = {
    ...(theta === undefined ? {} : { rope_theta: theta }),
    ...(partial === undefined ? {} : { partial_rotary_factor: partial }),
  }
  const changed = {
    max_position_embeddings: context * factor,
    [raw.rope_parameters ? 'rope_parameters' : 'rope_scaling']: { ...kept, ...scaling },
  }
  const whole = { ...raw, ...changed }
  familyOf(whole).parseConfig(whole)
  return changed
}
