import { z } from 'zod'
import type { Activation, DecoderConfig, RopeConfig } from '../nn/config.ts'
import { layerWindows, type SlidingRule } from './layer-windows.ts'
import { llamaNames } from './names.ts'
import { malformedConfig, parseWith, type RawConfig, unsupportedField } from './raw-config.ts'
import { parseRope, type RopeOptions } from './rope-config.ts'

const size = z.number().int().positive()

/** The fields that families spell alike. */
const schema = z.looseObject({
  model_type: z.string(),
  vocab_size: size,
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: size.optional(),
  head_dim: size.optional(),
  max_position_embeddings: size.default(2048),
  rms_norm_eps: z.number().positive().default(1e-6),
  hidden_act: z.string().default('silu'),
  tie_word_embeddings: z.boolean().default(false),
  attention_bias: z.boolean().default(false),
})

/** What a family's config.json means differently from Llama's. */
export interface FamilyRules {
  /** Values of fields that the file may leave out. */
  readonly defaults?: Readonly<Record<string, unknown>>
  /** The activation's name and the field that gives it, where that isn't hidden_act. */
  readonly activation?: { readonly field: string; readonly name: unknown }
  /** Which layers see only a window; left out: none. */
  readonly sliding?: SlidingRule
  readonly rope?: Omit<RopeOptions, 'headDim'>
  /** The rope of sliding and of other layers, where they differ. */
  readonly ropeOf?: (headDim: number, slides: boolean) => RopeConfig
}

/**
 * A DecoderConfig of the llama shape; a family spreads it and replaces what it does otherwise.
 * @throws EngineError unsupported, naming the field, for a variant that is not computed here; invalid for wrong fields.
 */
export function decoderConfig(raw: RawConfig, rules: FamilyRules = {}): DecoderConfig {
  refuseVariants(raw)
  const given = Object.entries(raw).filter(([, value]) => value !== null && value !== undefined)
  const config = parseWith(schema, { ...rules.defaults, ...Object.fromEntries(given) } as RawConfig)
  const heads = config.num_attention_heads
  const keyValueHeads = config.num_key_value_heads ?? heads
  const headDim = config.head_dim ?? config.hidden_size / heads
  if (!Number.isInteger(headDim))
    throw malformedConfig(raw, `hidden_size ${config.hidden_size} is no multiple of ${heads} heads`)
  if (heads % keyValueHeads !== 0) {
    throw malformedConfig(raw, `${heads} query heads cannot share ${keyValueHeads} key heads evenly`)
  }
  const ropeOf = rules.ropeOf ?? sameRope(parseRope(raw, { ...rules.rope, headDim }))
  const ropes = { full: ropeOf(headDim, false), sliding: ropeOf(headDim, true) }
  const { field, name } = rules.activation ?? { field: 'hidden_act', name: config.hidden_act }
  const windows = layerWindows(raw, config.num_hidden_layers, rules.sliding)
  return {
    modelType: config.model_type,
    vocabSize: config.vocab_size,
    hiddenSize: config.hidden_size,
    intermediateSize: config.intermediate_size,
    layers: config.num_hidden_layers,
    heads,
    keyValueHeads,
    headDim,
    maxPositions: longestContext(config.max_position_embeddings, ropes.full),
    tieWordEmbeddings: config.tie_word_embeddings,
    embeddingScale: 1,
    normEpsilon: config.rms_norm_eps,
    normOffset: 0,
    activation: parseActivation(raw, field, name),
    layerAttention: windows.map((window) => ({ window, rope: window === null ? ropes.full : ropes.sliding })),
    attentionScale: 1 / Math.sqrt(headDim),
    scoreSoftCap: null,
    logitSoftCap: null,
    queryKeyNorm: 'none',
    bias: { queryKeyValue: config.attention_bias, output: config.attention_bias, mlp: false },
    experts: null,
    normalizeHead: false,
    names: llamaNames,
  }
}

/** YaRN reaches its factor times what the model was trained on, whatever the file says; longrope's short factors end there. */
function longestContext(stated: number, { scaling }: RopeConfig): number {
  if (scaling?.kind === 'yarn')
    return Math.max(stated, Math.floor(scaling.factor * scaling.originalMaxPositions))
  return scaling && 'reach' in scaling ? Math.min(stated, scaling.reach) : stated
}

const sameRope = (rope: RopeConfig) => () => rope

const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  silu: 'silu',
  swish: 'silu',
  gelu_pytorch_tanh: 'gelu_tanh',
  gelu_new: 'gelu_tanh',
}

/** transformers' name of an activation. */
function parseActivation(raw: RawConfig, field: string, name: unknown): Activation {
  const activation = typeof name === 'string' ? ACTIVATIONS[name] : undefined
  if (activation) return activation
  throw unsupportedField(raw, field, name, `${Object.keys(ACTIVATIONS).join(', ')} are`)
}

/** Training would have to drop at random inside the base, where this engine drops on the adapters' inputs alone. */
const DROPOUTS = [
  'attention_dropout',
  'embd_pdrop',
  'embedding_dropout',
  'hidden_dropout',
  'resid_pdrop',
  'router_jitter_noise',
]

function refuseVariants(raw: RawConfig): void {
  for (const field of DROPOUTS) {
    if (raw[field]) throw unsupportedField(raw, field, raw[field], 'a base without dropout of its own (0) is')
  }
  if (raw.use_bidirectional_attention) {
    throw unsupportedField(raw, 'use_bidirectional_attention', true, 'causal attention is')
  }
  if (raw.quantization_config) {
    const method = (raw.quantization_config as { quant_method?: unknown }).quant_method
    throw unsupportedField(raw, 'quantization_config.quant_method', method, 'bf16, fp16 and fp32 weights are')
  }
}

/** A positive number, or null where the field is null or absent. */
export function optionalNumber(
  raw: RawConfig,
  field: string,
  otherwise: number | null = null,
): number | null {
  const value = raw[field] === undefined ? otherwise : raw[field]
  if (value === null || (typeof value === 'number' && value > 0)) return value as number | null
  throw malformedConfig(raw, `${field}: ${JSON.stringify(value)} is not a positive number`)
}
