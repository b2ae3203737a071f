import { z } from 'zod'
import type { RopeConfig } from '../nn/config.ts'
import { malformedConfig, parseWith, type RawConfig, unsupportedField } from './raw-config.ts'
import { parseScaling } from './rope-scaling.ts'

const positive = z.number().positive()
const ropeSchema = z.looseObject({
  rope_theta: positive.nullish(),
  rope_type: z.string().nullish(),
  type: z.string().nullish(),
  factor: positive.nullish(),
  low_freq_factor: positive.nullish(),
  high_freq_factor: positive.nullish(),
  original_max_position_embeddings: z.number().int().positive().nullish(),
  partial_rotary_factor: z.number().positive().max(1).nullish(),
  attention_factor: positive.nullish(),
  beta_fast: positive.nullish(),
  beta_slow: positive.nullish(),
  mscale: z.number().min(0).nullish(),
  mscale_all_dim: z.number().min(0).nullish(),
  truncate: z.boolean().nullish(),
  short_factor: z.array(positive).nullish(),
  long_factor: z.array(positive).nullish(),
})
export type RawRope = z.infer<typeof ropeSchema>

const schema = z.looseObject({
  model_type: z.string(),
  rope_theta: positive.nullish(),
  partial_rotary_factor: z.number().positive().max(1).nullish(),
  rope_scaling: ropeSchema.nullish(),
  rope_parameters: ropeSchema.nullish(),
})

export interface RopeOptions {
  readonly headDim: number
  /** rope_theta where the file has none. */
  readonly theta?: number
  /** partial_rotary_factor where the file has none; left out by families that rotate whole heads. */
  readonly partial?: number
  readonly interleaved?: boolean
  /** Its scalings by older names ('su', 'yarn') are longrope, as Phi-3's are. */
  readonly longRopeAlone?: boolean
}

/**
 * The rope of a config.json: rope_theta and rope_scaling as before transformers 5, or rope_parameters.
 * @throws EngineError unsupported for scalings that aren't computed here, invalid for missing numbers.
 */
export function parseRope(raw: RawConfig, options: RopeOptions): RopeConfig {
  const config = parseWith(schema, raw)
  const field = config.rope_parameters ? 'rope_parameters' : 'rope_scaling'
  const rope: RawRope = { ...config.rope_scaling, ...config.rope_parameters }
  return ropeConfig(
    raw,
    field,
    {
      ...rope,
      rope_theta: rope.rope_theta ?? config.rope_theta,
      partial_rotary_factor: rope.partial_rotary_factor ?? config.partial_rotary_factor,
    },
    options,
  )
}

/** The rope of one group of layers, from the object at `field`. */
export function parseRopeAt(raw: RawConfig, field: string, rope: unknown, options: RopeOptions): RopeConfig {
  const parsed = ropeSchema.safeParse(rope ?? {})
  if (!parsed.success) throw malformedConfig(raw, `${field}: ${parsed.error.issues[0]?.message}`)
  return ropeConfig(raw, field, parsed.data, options)
}

function ropeConfig(raw: RawConfig, field: string, rope: RawRope, options: RopeOptions): RopeConfig {
  const { headDim, theta = 10_000, partial, interleaved = false, longRopeAlone = false } = options
  for (const kind of ['full_attention', 'sliding_attention']) {
    if (kind in rope)
      throw unsupportedField(raw, `${field}.${kind}`, rope[kind], 'one rope for all layers is')
  }
  const factor = rope.partial_rotary_factor ?? partial ?? 1
  if (partial === undefined && factor !== 1) {
    throw unsupportedField(raw, 'partial_rotary_factor', factor, 'rotating whole heads (1) is')
  }
  const rotaryDim = Math.trunc(headDim * factor)
  if (rotaryDim === 0 || rotaryDim % 2 !== 0) {
    throw malformedConfig(raw, `${rotaryDim} of ${headDim} dimensions of a head cannot rotate in pairs`)
  }
  const scaling = parseScaling(raw, field, rope, { pairs: rotaryDim / 2, longRopeAlone })
  return { theta: rope.rope_theta ?? theta, scaling, rotaryDim, interleaved }
}
