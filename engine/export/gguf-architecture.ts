import { type Architecture, ggufArchitectureOf, slidesByPeriod } from '../gguf/families.ts'
import { type GgufSource, modelTensors } from '../gguf/tensors.ts'
import type { OpenModel } from '../models/index.ts'
import type { DecoderConfig, RopeScaling } from '../nn/config.ts'
import { checkArchitectureFits } from './gguf-fit.ts'
import type { GgufMetadataValue } from './gguf-writer.ts'

/** A model in GGUF's terms: its architecture's metadata and its tensors in file order. */
export interface GgufModel {
  readonly architecture: string
  /** Longest context in which llama.cpp computes what we do, in tokens. */
  readonly contextLength: number
  readonly metadata: ReadonlyMap<string, GgufMetadataValue>
  readonly tensors: readonly GgufSource[]
}

/**
 * Translates a model's config and tensor names.
 *
 * @throws EngineError `unsupported` for a family or variant that llama.cpp computes otherwise or not at all; `invalid`
 *   naming a tensor that is missing or of another shape.
 */
export function ggufModel(model: OpenModel): GgufModel {
  const { config, weights } = model
  const architecture = ggufArchitectureOf(config)
  checkArchitectureFits(architecture, config)
  const tensors = modelTensors(architecture, config, (_, bias) => weights.has(bias))
  for (const { from } of tensors) {
    if (from instanceof Float32Array) continue
    for (const { name, shape } of from) weights.expectShape(name, shape)
  }
  const contextLength = contextOf(architecture, config)
  return {
    architecture: architecture.name,
    contextLength,
    metadata: architectureMetadata(architecture, config, contextLength),
    tensors,
  }
}

/** Where an architecture has no windows, the whole context must lie within the narrowest: there the window changes nothing. */
function contextOf({ windowPeriod }: Architecture, { layerAttention, maxPositions }: DecoderConfig): number {
  if (windowPeriod !== undefined) return maxPositions
  return Math.min(maxPositions, ...layerAttention.flatMap(({ window }) => window ?? []))
}

function architectureMetadata(
  architecture: Architecture,
  config: DecoderConfig,
  contextLength: number,
): Map<string, GgufMetadataValue> {
  const { headDim, experts } = config
  const rope = fullRope(config)
  const u32 = (value: number | undefined) => (value === undefined ? undefined : { u32: value })
  const f32 = (value: number | null) => (value === null ? undefined : { f32: value })
  const fields: [string, GgufMetadataValue | undefined][] = [
    ['block_count', { u32: config.layers }],
    ['context_length', { u32: contextLength }],
    ['embedding_length', { u32: config.hiddenSize }],
    ['feed_forward_length', { u32: config.intermediateSize }],
    ['attention.head_count', { u32: config.heads }],
    ['attention.head_count_kv', { u32: config.keyValueHeads }],
    ['attention.key_length', { u32: headDim }],
    ['attention.value_length', { u32: headDim }],
    ['attention.layer_norm_rms_epsilon', { f32: config.normEpsilon }],
    ['rope.dimension_count', { u32: rope.rotaryDim }],
    ['rope.freq_base', { f32: rope.theta }],
    ['vocab_size', { u32: config.vocabSize }],
    ['attn_logit_softcapping', f32(config.scoreSoftCap)],
    ['final_logit_softcapping', f32(config.logitSoftCap)],
    ['expert_count', u32(experts?.count)],
    ['expert_used_count', u32(experts?.perToken)],
    ['expert_feed_forward_length', u32(experts?.intermediateSize)],
    ...windowFields(architecture, config),
  ]
  fields.push(...scalingFields(rope.scaling))
  const present = fields.filter((field): field is [string, GgufMetadataValue] => field[1] !== undefined)
  return new Map(present.map(([key, value]) => [`${architecture.name}.${key}`, value]))
}

/** A scaling's own fields; Llama 3's and longrope's frequencies are tensors. */
function scalingFields(scaling: RopeScaling | null): [string, GgufMetadataValue][] {
  switch (scaling?.kind) {
    case 'linear':
      return [
        ['rope.scaling.type', { text: 'linear' }],
        ['rope.scaling.factor', { f32: scaling.factor }],
      ]
    case 'yarn':
      return [
        ['rope.scaling.type', { text: 'yarn' }],
        ['rope.scaling.factor', { f32: scaling.factor }],
        ['rope.scaling.original_context_length', { u32: scaling.originalMaxPositions }],
        ['rope.scaling.yarn_beta_fast', { f32: scaling.betaFast }],
        ['rope.scaling.yarn_beta_slow', { f32: scaling.betaSlow }],
        // llama.cpp multiplies this by its own 0.1 · ln(factor) + 1.
        ['rope.scaling.attn_factor', { f32: scaling.attentionFactor / (1 + 0.1 * Math.log(scaling.factor)) }],
      ]
    case 'longrope':
      return [
        ['rope.scaling.original_context_length', { u32: scaling.reach }],
        ['rope.scaling.attn_factor', { f32: scaling.attentionFactor }],
      ]
    default:
      return []
  }
}

/** The rope of the layers without a window, which GGUF takes as the model's own. */
function fullRope({ layerAttention }: DecoderConfig) {
  return (layerAttention.find(({ window }) => window === null) ?? layerAttention[0]!).rope
}

/** Whether windows are in the layers where an architecture has them if a file says nothing. */
export function hasUsualWindows(
  { layerAttention }: Pick<DecoderConfig, 'layerAttention'>,
  windowPeriod: number,
): boolean {
  return layerAttention.every(
    ({ window }, layer) => (window !== null) === slidesByPeriod(layer, windowPeriod),
  )
}

/** The width of the windows, their rope, and which layers have them where that isn't the architecture's rule. */
function windowFields(
  { windowPeriod }: Architecture,
  { layerAttention, maxPositions }: DecoderConfig,
): [string, GgufMetadataValue][] {
  if (windowPeriod === undefined) return []
  const sliding = layerAttention.find(({ window }) => window !== null)
  const usual = hasUsualWindows({ layerAttention }, windowPeriod)
  const pattern = layerAttention.map(({ window }) => (window === null ? 0 : 1))
  const theta = (sliding ?? layerAttention[0]!).rope.theta
  return [
    ['attention.sliding_window', { u32: sliding?.window ?? maxPositions }],
    ['rope.freq_base_swa', { f32: theta }],
    ['rope.local.freq_base', { f32: theta }], // Ollama's name for it
    ...(usual
      ? []
      : [['attention.sliding_window_pattern', { i32s: pattern }] as [string, GgufMetadataValue]]),
  ]
}
