import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { EngineError } from '../errors.ts'

/** How rotary frequencies are stretched for contexts longer than the model was trained on. */
export type RopeScaling =
  | { kind: 'linear'; factor: number }
  | {
      kind: 'llama3'
      factor: number
      lowFrequencyFactor: number
      highFrequencyFactor: number
      originalMaxPositions: number
    }

/** What every decoder-only family shares, in one vocabulary; a family's parser fills it from its config.json. */
export interface DecoderConfig {
  readonly modelType: string
  readonly vocabSize: number
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly layers: number
  readonly heads: number
  readonly keyValueHeads: number
  readonly headDim: number
  /** Longest context, in tokens. */
  readonly maxPositions: number
  readonly normEpsilon: number
  readonly ropeTheta: number
  readonly ropeScaling: RopeScaling | null
  readonly tieWordEmbeddings: boolean
  /** Which projections have a bias. */
  readonly bias: { readonly queryKeyValue: boolean; readonly output: boolean; readonly mlp: boolean }
}

/** config.json as it stands on disk, in transformers' older form or the one of version 5. */
export type RawConfig = Record<string, unknown> & { model_type: string }

/** Reads config.json of a Hugging Face folder. */
export function readRawConfig(folder: string): RawConfig {
  const path = join(folder, 'config.json')
  let content: string
  try {
    content = readFileSync(path, 'utf8')
  } catch (cause) {
    throw new EngineError(
      'not_found',
      'config_missing',
      `${path} cannot be read; a model folder needs a config.json`,
      {
        cause,
      },
    )
  }
  try {
    return z.looseObject({ model_type: z.string() }).parse(JSON.parse(content))
  } catch (cause) {
    throw new EngineError('invalid', 'config_malformed', `${path} is not a JSON object with a model_type`, {
      cause,
    })
  }
}

const ropeSchema = z.looseObject({
  rope_theta: z.number().positive().optional(),
  rope_type: z.string().optional(),
  type: z.string().optional(),
  factor: z.number().positive().optional(),
  low_freq_factor: z.number().positive().optional(),
  high_freq_factor: z.number().positive().optional(),
  original_max_position_embeddings: z.number().int().positive().optional(),
})

const size = z.number().int().positive()

/** The fields that llama-shaped families have in common. */
export const decoderSchema = z.looseObject({
  model_type: z.string(),
  vocab_size: size,
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  head_dim: size.nullish(),
  max_position_embeddings: size.default(2048),
  rms_norm_eps: z.number().positive().default(1e-6),
  hidden_act: z.string().default('silu'),
  rope_theta: z.number().positive().nullish(),
  rope_scaling: ropeSchema.nullish(),
  rope_parameters: ropeSchema.nullish(),
  tie_word_embeddings: z.boolean().default(false),
})

/** Validates `raw` with a family's schema; the error lists every wrong field. */
export function parseWith<T>(schema: z.ZodType<T>, raw: RawConfig): T {
  const result = schema.safeParse(raw)
  if (result.success) return result.data
  const problems = result.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`)
  throw new EngineError(
    'invalid',
    'config_malformed',
    `config.json of ${raw.model_type}: ${problems.join('; ')}`,
  )
}

/** The error for a variant that this engine does not compute; silence here would give wrong numbers. */
export function unsupportedField(
  raw: RawConfig,
  field: string,
  value: unknown,
  supported: string,
): EngineError {
  return new EngineError(
    'unsupported',
    'config_unsupported',
    `config.json of ${raw.model_type}: ${field} = ${JSON.stringify(value)} is not supported; ${supported}`,
    { param: field },
  )
}

/** The common part of a DecoderConfig, from fields that llama-shaped families spell alike. */
export function commonDecoderConfig(raw: RawConfig): Omit<DecoderConfig, 'bias'> {
  const config = parseWith(decoderSchema, raw)
  if (config.hidden_act !== 'silu') throw unsupportedField(raw, 'hidden_act', config.hidden_act, "'silu' is")
  if (raw.quantization_config) {
    const method = (raw.quantization_config as { quant_method?: unknown }).quant_method
    throw unsupportedField(raw, 'quantization_config.quant_method', method, 'bf16, fp16 and fp32 weights are')
  }
  const rope = { ...config.rope_scaling, ...config.rope_parameters }
  return {
    modelType: config.model_type,
    vocabSize: config.vocab_size,
    hiddenSize: config.hidden_size,
    intermediateSize: config.intermediate_size,
    layers: config.num_hidden_layers,
    heads: config.num_attention_heads,
    keyValueHeads: config.num_key_value_heads ?? config.num_attention_heads,
    headDim: config.head_dim ?? config.hidden_size / config.num_attention_heads,
    maxPositions: config.max_position_embeddings,
    normEpsilon: config.rms_norm_eps,
    ropeTheta: rope.rope_theta ?? config.rope_theta ?? 10_000,
    ropeScaling: parseRopeScaling(raw, rope),
    tieWordEmbeddings: config.tie_word_embeddings,
  }
}

function parseRopeScaling(raw: RawConfig, rope: z.infer<typeof ropeSchema>): RopeScaling | null {
  const kind = rope.rope_type ?? rope.type ?? 'default'
  const required = <K extends keyof typeof rope>(field: K): NonNullable<(typeof rope)[K]> => {
    const value = rope[field]
    if (value === undefined || value === null) {
      throw new EngineError(
        'invalid',
        'config_malformed',
        `config.json: rope type '${kind}' needs ${String(field)}`,
      )
    }
    return value as NonNullable<(typeof rope)[K]>
  }
  if (kind === 'default') return null
  if (kind === 'linear') return { kind, factor: required('factor') as number }
  if (kind !== 'llama3') {
    throw unsupportedField(raw, 'rope_scaling.rope_type', kind, "'default', 'linear' and 'llama3' are")
  }
  return {
    kind,
    factor: required('factor') as number,
    lowFrequencyFactor: required('low_freq_factor') as number,
    highFrequencyFactor: required('high_freq_factor') as number,
    originalMaxPositions: required('original_max_position_embeddings') as number,
  }
}
