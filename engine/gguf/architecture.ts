import { malformedGguf } from './cursor.ts'
import type { GgufTensor } from './header.ts'
import type { GgufMetadata } from './metadata.ts'
import { ROPE_FACTORS, readRopeScaling } from './rope-scaling.ts'

/** What distinguishes the architectures that are read, all of the llama shape. */
interface Architecture {
  /** `architectures` of config.json; `model_type` is the architecture's own name. */
  className: string
  /** Rotary halves are interleaved in the rows of q and k: https://github.com/ggml-org/llama.cpp, convert_hf_to_gguf.py. */
  interleavedRotary: boolean
  /** Which projections may, or must, have a bias. */
  biases: 'optional' | 'query-key-value' | 'none'
  /** q and k are normalised per head. */
  headNorms: boolean
}

const ARCHITECTURES: Record<string, Architecture> = {
  llama: { className: 'LlamaForCausalLM', interleavedRotary: true, biases: 'optional', headNorms: false },
  qwen2: {
    className: 'Qwen2ForCausalLM',
    interleavedRotary: false,
    biases: 'query-key-value',
    headNorms: false,
  },
  qwen3: { className: 'Qwen3ForCausalLM', interleavedRotary: false, biases: 'none', headNorms: true },
}

/** One tensor on its way from the GGUF file to a Hugging Face folder. */
export interface MappedTensor {
  source: GgufTensor
  /** Hugging Face's name. */
  name: string
  /** Rows of each head, where its two rotary halves are interleaved and must be parted. */
  interleavedRows: number | undefined
}

/** What a GGUF file's metadata and tensors say, in Hugging Face's terms. */
export interface MappedModel {
  config: Record<string, unknown>
  tensors: MappedTensor[]
}

/**
 * Maps metadata to config.json and GGUF's tensor names to Hugging Face's.
 *
 * @param readRopeFactors values of `rope_freqs.weight`, read only when the file has it.
 * @throws EngineError `unsupported` naming an architecture or variant that is not read; `invalid` listing tensors that are
 *   missing, unknown or of another shape than the metadata says.
 */
export function mapModel(
  metadata: GgufMetadata,
  tensors: ReadonlyMap<string, GgufTensor>,
  readRopeFactors: (tensor: GgufTensor) => Float32Array,
): MappedModel {
  const name = metadata.require('general.architecture', metadata.text)
  const architecture = Object.hasOwn(ARCHITECTURES, name) ? ARCHITECTURES[name]! : undefined
  if (!architecture) {
    const known = Object.keys(ARCHITECTURES).join(', ')
    throw metadata.unsupported('general.architecture', name, `the architectures ${known} are`)
  }
  const sizes = readSizes(metadata, name, tensors)
  const expected = expectedTensors(architecture, sizes, tensors)
  const mapped = checkTensors(metadata.path, expected, tensors)
  const factors = tensors.get(ROPE_FACTORS)
  if (factors && String(factors.shape) !== String([sizes.headDim / 2])) {
    throw malformedGguf(metadata.path, `${ROPE_FACTORS} is [${factors.shape}], not [${sizes.headDim / 2}]`)
  }
  const ropeScaling = readRopeScaling(metadata, name, sizes, factors && readRopeFactors(factors))
  return { config: configOf(name, architecture, metadata, sizes, ropeScaling, tensors), tensors: mapped }
}

interface Sizes {
  layers: number
  hidden: number
  intermediate: number
  heads: number
  keyValueHeads: number
  headDim: number
  context: number
  vocabulary: number
  ropeTheta: number
}

function readSizes(metadata: GgufMetadata, name: string, tensors: ReadonlyMap<string, GgufTensor>): Sizes {
  const count = (field: string) => metadata.require(`${name}.${field}`, (key) => metadata.count(key))
  if (metadata.count(`${name}.expert_count`, 0)) {
    throw metadata.unsupported(
      `${name}.expert_count`,
      metadata.number(`${name}.expert_count`),
      'dense models are',
    )
  }
  const hidden = count('embedding_length')
  const heads = count('attention.head_count')
  const headDim = metadata.count(`${name}.attention.key_length`) ?? hidden / heads
  if (!Number.isInteger(headDim) || headDim % 2 !== 0) {
    throw malformedGguf(
      metadata.path,
      `${hidden} dimensions are no whole, even number for each of ${heads} heads`,
    )
  }
  const rotary = metadata.count(`${name}.rope.dimension_count`) ?? headDim
  if (rotary !== headDim) {
    throw metadata.unsupported(
      `${name}.rope.dimension_count`,
      rotary,
      `all ${headDim} dimensions of a head are`,
    )
  }
  const embedding = tensors.get('token_embd.weight')
  if (!embedding) throw malformedGguf(metadata.path, 'it has no tensor token_embd.weight')
  return {
    layers: count('block_count'),
    hidden,
    intermediate: count('feed_forward_length'),
    heads,
    keyValueHeads: metadata.count(`${name}.attention.head_count_kv`) ?? heads,
    headDim,
    context: count('context_length'),
    vocabulary: embedding.shape[0]!,
    ropeTheta: metadata.number(`${name}.rope.freq_base`) ?? 10_000,
  }
}

interface ExpectedTensor {
  source: string
  name: string
  shape: number[]
  interleavedRows?: number
}

/** Every tensor that the file must have, under both names; what it need not have only where it does. */
function expectedTensors(
  architecture: Architecture,
  sizes: Sizes,
  tensors: ReadonlyMap<string, GgufTensor>,
): ExpectedTensor[] {
  const { hidden, vocabulary, layers } = sizes
  const expected: ExpectedTensor[] = [
    { source: 'token_embd.weight', name: 'model.embed_tokens.weight', shape: [vocabulary, hidden] },
    { source: 'output_norm.weight', name: 'model.norm.weight', shape: [hidden] },
  ]
  if (tensors.has('output.weight')) {
    expected.push({ source: 'output.weight', name: 'lm_head.weight', shape: [vocabulary, hidden] })
  }
  // More layers than tensors cannot be: the metadata's count alone must not make a long list.
  for (let layer = 0; layer < Math.min(layers, tensors.size); layer++) {
    expected.push(...layerTensors(layer, architecture, sizes, tensors))
  }
  return expected
}

function layerTensors(
  layer: number,
  { interleavedRotary, biases, headNorms }: Architecture,
  { hidden, intermediate, heads, keyValueHeads, headDim }: Sizes,
  tensors: ReadonlyMap<string, GgufTensor>,
): ExpectedTensor[] {
  const [queries, keys] = [heads * headDim, keyValueHeads * headDim]
  const halves = interleavedRotary ? headDim : undefined
  const linear: [source: string, name: string, out: number, columns: number, interleavedRows?: number][] = [
    ['attn_q', 'self_attn.q_proj', queries, hidden, halves],
    ['attn_k', 'self_attn.k_proj', keys, hidden, halves],
    ['attn_v', 'self_attn.v_proj', keys, hidden],
    ['attn_output', 'self_attn.o_proj', hidden, queries],
    ['ffn_gate', 'mlp.gate_proj', intermediate, hidden],
    ['ffn_up', 'mlp.up_proj', intermediate, hidden],
    ['ffn_down', 'mlp.down_proj', hidden, intermediate],
  ]
  const norms: [source: string, name: string, size: number][] = [
    ['attn_norm', 'input_layernorm', hidden],
    ['ffn_norm', 'post_attention_layernorm', hidden],
  ]
  if (headNorms)
    norms.push(['attn_q_norm', 'self_attn.q_norm', headDim], ['attn_k_norm', 'self_attn.k_norm', headDim])
  const [from, to] = [`blk.${layer}`, `model.layers.${layer}`]
  const hasBias = (part: string) =>
    biases === 'optional'
      ? tensors.has(`${from}.${part}.bias`)
      : biases === 'query-key-value' && ['attn_q', 'attn_k', 'attn_v'].includes(part)
  return [
    ...norms.map(([source, name, size]) => ({
      source: `${from}.${source}.weight`,
      name: `${to}.${name}.weight`,
      shape: [size],
    })),
    ...linear.flatMap(([source, name, out, columns, interleavedRows]) => {
      const weight = {
        source: `${from}.${source}.weight`,
        name: `${to}.${name}.weight`,
        shape: [out, columns],
        interleavedRows,
      }
      if (!hasBias(source)) return [weight]
      const bias = {
        source: `${from}.${source}.bias`,
        name: `${to}.${name}.bias`,
        shape: [out],
        interleavedRows,
      }
      return [weight, bias]
    }),
  ]
}

const SHOWN = 8

function checkTensors(
  path: string,
  expected: readonly ExpectedTensor[],
  tensors: ReadonlyMap<string, GgufTensor>,
): MappedTensor[] {
  const problems: string[] = []
  const unknown = new Set(tensors.keys())
  unknown.delete(ROPE_FACTORS)
  const mapped: MappedTensor[] = []
  for (const { source, name, shape, interleavedRows } of expected) {
    unknown.delete(source)
    const tensor = tensors.get(source)
    if (!tensor) problems.push(`${source} is missing`)
    else if (String(tensor.shape) !== String(shape)) {
      problems.push(`${source} is [${tensor.shape}], but its metadata says [${shape}]`)
    } else mapped.push({ source: tensor, name, interleavedRows })
  }
  for (const name of unknown) problems.push(`${name.slice(0, 100)} has no place in this architecture`)
  if (problems.length === 0) return mapped
  const more = problems.length > SHOWN ? `; and ${problems.length - SHOWN} more` : ''
  throw malformedGguf(path, `${problems.slice(0, SHOWN).join('; ')}${more}`)
}

function configOf(
  name: string,
  architecture: Architecture,
  metadata: GgufMetadata,
  sizes: Sizes,
  ropeScaling: Record<string, unknown> | null,
  tensors: ReadonlyMap<string, GgufTensor>,
): Record<string, unknown> {
  const common = {
    architectures: [architecture.className],
    model_type: name,
    vocab_size: sizes.vocabulary,
    hidden_size: sizes.hidden,
    intermediate_size: sizes.intermediate,
    num_hidden_layers: sizes.layers,
    num_attention_heads: sizes.heads,
    num_key_value_heads: sizes.keyValueHeads,
    head_dim: sizes.headDim,
    max_position_embeddings: sizes.context,
    rms_norm_eps: metadata.require(`${name}.attention.layer_norm_rms_epsilon`, metadata.number),
    rope_theta: sizes.ropeTheta,
    rope_scaling: ropeScaling,
    hidden_act: 'silu',
    tie_word_embeddings: !tensors.has('output.weight'),
    use_cache: true,
  }
  return { ...common, ...biasConfig(name, metadata, tensors) }
}

/** How config.json states the biases; llama's flag means all four projections of attention at once. */
function biasConfig(
  name: string,
  metadata: GgufMetadata,
  tensors: ReadonlyMap<string, GgufTensor>,
): Record<string, unknown> {
  if (name === 'qwen2') return { use_sliding_window: false }
  if (name === 'qwen3') return { attention_bias: false, use_sliding_window: false }
  const has = (part: string) => tensors.has(`blk.0.${part}.bias`)
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
