import { malformedGguf } from './cursor.ts'
import {
  type Architecture,
  GGUF_ARCHITECTURES,
  importedFamily,
  queryScaleWidth,
  slidesByPeriod,
} from './families.ts'
import type { GgufTensor } from './header.ts'
import type { GgufMetadata } from './metadata.ts'
import { ROPE_FACTORS, readRopeScaling } from './rope-scaling.ts'

type Tensors = ReadonlyMap<string, GgufTensor>
type Fields = Record<string, unknown>

/** Of Phi-3's long contexts. */
const LONG_FACTORS = 'rope_factors_long.weight'

/** More than any model has: the metadata's count alone must not make a long list. */
const MAX_EXPERTS = 1024

/** config.json as a file's metadata says it, and the rules of its architecture. */
export interface ImportedConfig {
  architecture: Architecture
  raw: Fields & { model_type: string }
}

/**
 * Translates metadata into Hugging Face's config.json.
 *
 * @param readRopeFactors values of `rope_freqs.weight`, read only when the file has it.
 * @throws EngineError `unsupported` naming an architecture or variant that is not read; `invalid` for metadata that is
 *   missing or contradicts itself.
 */
export function readConfig(
  metadata: GgufMetadata,
  tensors: Tensors,
  readRopeFactors: (tensor: GgufTensor) => Float32Array,
): ImportedConfig {
  const name = metadata.require('general.architecture', metadata.text)
  const experts = metadata.count(`${name}.expert_count`, 0, MAX_EXPERTS) ?? 0
  const family = importedFamily(name, experts > 0)
  if (!family) throw unsupportedFamily(metadata, name, experts)
  const { modelType, architecture } = family
  const sizes = readSizes(metadata, architecture, tensors)
  if (tensors.has(LONG_FACTORS)) {
    throw metadata.unsupported(LONG_FACTORS, 'longrope', 'one rope for short and long contexts is')
  }
  const factors = tensors.get(ROPE_FACTORS)
  if (factors && String(factors.shape) !== String([sizes.rotary / 2])) {
    throw malformedGguf(metadata.path, `${ROPE_FACTORS} is [${factors.shape}], not [${sizes.rotary / 2}]`)
  }
  const rope = { headDim: sizes.rotary, ropeTheta: sizes.ropeTheta }
  const ropeScaling = readRopeScaling(metadata, name, rope, factors && readRopeFactors(factors))
  const raw = {
    ...commonFields(metadata, modelType, architecture, sizes, tensors),
    rope_scaling: ropeScaling,
    ...windowFields(metadata, architecture, sizes),
    ...capFields(metadata, architecture, sizes),
    ...(experts > 0 ? expertFields(metadata, modelType, name, experts) : {}),
    ...biasFields(metadata, modelType, architecture, tensors),
  }
  return { architecture, raw }
}

function unsupportedFamily(metadata: GgufMetadata, name: string, experts: number) {
  if (GGUF_ARCHITECTURES.includes(name)) {
    const others = experts > 0 ? 'dense models are' : 'models with experts are'
    return metadata.unsupported(`${name}.expert_count`, experts, others)
  }
  return metadata.unsupported(
    'general.architecture',
    name,
    `the architectures ${GGUF_ARCHITECTURES.join(', ')} are`,
  )
}

interface Sizes {
  layers: number
  hiddenSize: number
  intermediate: number
  heads: number
  keyValueHeads: number
  headDim: number
  /** Dimensions of each head that rotate. */
  rotary: number
  context: number
  vocabulary: number
  ropeTheta: number
}

function readSizes(metadata: GgufMetadata, { name, partialRotary }: Architecture, tensors: Tensors): Sizes {
  const count = (field: string) => metadata.require(`${name}.${field}`, (key) => metadata.count(key))
  const hiddenSize = count('embedding_length')
  const heads = count('attention.head_count')
  const headDim = metadata.count(`${name}.attention.key_length`) ?? hiddenSize / heads
  if (!Number.isInteger(headDim) || headDim % 2 !== 0) {
    throw malformedGguf(
      metadata.path,
      `${hiddenSize} dimensions are no whole, even number for each of ${heads} heads`,
    )
  }
  const rotary = metadata.count(`${name}.rope.dimension_count`) ?? headDim
  if (rotary !== headDim && !partialRotary) {
    const key = `${name}.rope.dimension_count`
    throw metadata.unsupported(key, rotary, `all ${headDim} dimensions of a head are`)
  }
  const embedding = tensors.get('token_embd.weight')
  if (!embedding) throw malformedGguf(metadata.path, 'it has no tensor token_embd.weight')
  const layers = count('block_count')
  // The metadata's count alone must not make a long list.
  if (layers > tensors.size) {
    throw malformedGguf(metadata.path, `${layers} layers cannot lie in ${tensors.size} tensors`)
  }
  return {
    layers,
    hiddenSize,
    intermediate: count('feed_forward_length'),
    heads,
    keyValueHeads: metadata.count(`${name}.attention.head_count_kv`) ?? heads,
    headDim,
    rotary,
    context: count('context_length'),
    vocabulary: embedding.shape[0]!,
    ropeTheta: metadata.number(`${name}.rope.freq_base`) ?? 10_000,
  }
}

function commonFields(
  metadata: GgufMetadata,
  modelType: string,
  { name, className, gelu, partialRotary }: Architecture,
  sizes: Sizes,
  tensors: Tensors,
) {
  const activation = gelu ? 'gelu_pytorch_tanh' : 'silu'
  return {
    architectures: [className],
    model_type: modelType,
    vocab_size: sizes.vocabulary,
    hidden_size: sizes.hiddenSize,
    intermediate_size: sizes.intermediate,
    num_hidden_layers: sizes.layers,
    num_attention_heads: sizes.heads,
    num_key_value_heads: sizes.keyValueHeads,
    head_dim: sizes.headDim,
    max_position_embeddings: sizes.context,
    rms_norm_eps: metadata.require(`${name}.attention.layer_norm_rms_epsilon`, metadata.number),
    rope_theta: sizes.ropeTheta,
    ...(partialRotary ? { partial_rotary_factor: sizes.rotary / sizes.headDim } : {}),
    hidden_act: activation,
    ...(gelu ? { hidden_activation: activation } : {}),
    tie_word_embeddings: !tensors.has('output.weight'),
    use_cache: true,
  }
}

/** Windows, the layers that have them, and the rope of those layers where it is one of its own. */
function windowFields(metadata: GgufMetadata, { name, windowPeriod }: Architecture, sizes: Sizes): Fields {
  const window = metadata.count(`${name}.attention.sliding_window`)
  if (windowPeriod === undefined) return name === 'phi3' ? { sliding_window: window ?? null } : {}
  if (window === undefined) {
    throw malformedGguf(metadata.path, `its metadata has no ${name}.attention.sliding_window`)
  }
  const slides = slidingLayers(metadata, `${name}.attention.sliding_window_pattern`, windowPeriod, sizes)
  const theta = metadata.number(`${name}.rope.freq_base_swa`)
  return {
    sliding_window: window,
    layer_types: slides.map((slide) => (slide ? 'sliding_attention' : 'full_attention')),
    ...(name === 'gemma3' ? { rope_local_base_freq: theta ?? 10_000 } : {}),
  }
}

/** By the architecture's period, another one, or a list with a mark for each layer. */
function slidingLayers(metadata: GgufMetadata, key: string, usual: number, { layers }: Sizes): boolean[] {
  const pattern = metadata.has(key) ? metadata.countOrMarks(key) : usual
  if (typeof pattern === 'number') {
    return Array.from({ length: layers }, (_, layer) => slidesByPeriod(layer, pattern))
  }
  if (pattern.length === layers) return [...pattern]
  throw malformedGguf(metadata.path, `${key} has ${pattern.length} marks for ${layers} layers`)
}

/** Gemma's soft caps and the scale of its queries. */
function capFields(metadata: GgufMetadata, architecture: Architecture, sizes: Sizes): Fields {
  const { name, wideScaleLayers } = architecture
  if (wideScaleLayers === undefined) return {}
  const cap = (what: string, usual: number | null) => metadata.number(`${name}.${what}`) ?? usual
  return {
    query_pre_attn_scalar: queryScaleWidth(architecture, sizes),
    attn_logit_softcapping: cap('attn_logit_softcapping', name === 'gemma2' ? 50 : null),
    final_logit_softcapping: cap('final_logit_softcapping', name === 'gemma2' ? 30 : null),
  }
}

function expertFields(metadata: GgufMetadata, modelType: string, name: string, count: number): Fields {
  const used = metadata.require(`${name}.expert_used_count`, (key) => metadata.count(key, 1, count))
  const width = metadata.count(`${name}.expert_feed_forward_length`)
  if (modelType === 'mixtral') {
    return {
      num_local_experts: count,
      num_experts_per_tok: used,
      sliding_window: null,
      ...(width === undefined ? {} : { intermediate_size: width }),
    }
  }
  if (width === undefined) {
    throw malformedGguf(metadata.path, `its metadata has no ${name}.expert_feed_forward_length`)
  }
  return {
    num_experts: count,
    num_experts_per_tok: used,
    moe_intermediate_size: width,
    norm_topk_prob: true,
    decoder_sparse_step: 1,
    mlp_only_layers: [],
  }
}

/** How config.json states the biases; llama's flag means all four projections of attention at once. */
function biasFields(
  metadata: GgufMetadata,
  modelType: string,
  { biases }: Architecture,
  tensors: Tensors,
): Fields {
  if (modelType === 'qwen2') return { use_sliding_window: false }
  if (modelType === 'qwen3') return { attention_bias: false, use_sliding_window: false }
  const has = (part: string) => tensors.has(`blk.0.${part}.bias`)
  if (!biases) return { attention_bias: has('attn_q') || has('attn_qkv') }
  const every = (parts: readonly string[]) => {
    const found = parts.filter(has)
    if (found.length !== 0 && found.length !== parts.length) {
      throw metadata.unsupported('biases', found, `biases on all of ${parts.join(', ')} or none are`)
    }
    return found.length > 0
  }
  return {
    attention_bias: every(['attn_q', 'attn_k', 'attn_v', 'attn_output']),
    mlp_bias: every(['ffn_gate', 'ffn_up', 'ffn_down']),
  }
}
