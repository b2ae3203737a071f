import { EngineError } from '../errors.ts'
import type { DecoderConfig } from '../models/config.ts'
import type { OpenModel } from '../models/index.ts'
import { rotaryFrequencies } from '../nn/rope.ts'
import type { GgufMetadataValue } from './gguf-writer.ts'

/** What llama.cpp's architectures expect beyond what the config says (llama-arch.cpp, convert_hf_to_gguf.py). */
interface Architecture {
  readonly name: string
  /** Rows of query and key have their rotary halves interleaved. */
  readonly interleaved?: true
}

const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  llama: { name: 'llama', interleaved: true },
  Yi: { name: 'llama', interleaved: true },
  mistral: { name: 'llama', interleaved: true },
  qwen2: { name: 'qwen2' },
  qwen3: { name: 'qwen3' },
  gemma: { name: 'gemma' },
  gemma2: { name: 'gemma2' },
  gemma3_text: { name: 'gemma3' },
  phi3: { name: 'phi3' },
  olmo2: { name: 'olmo2' },
}

/** The role that decides how finely a tensor is quantized. */
export type TensorRole = 'embedding' | 'output' | 'value' | 'down' | 'matrix' | 'vector'

/** One tensor on its way from the checkpoint into the file. */
export interface GgufSource {
  /** Name in the file. */
  readonly name: string
  /** Name in the checkpoint, or values made here. */
  readonly from: string | Float32Array
  readonly shape: readonly number[]
  readonly role: TensorRole
  readonly layer?: number
  /** Rows of each head, where its two rotary halves are interleaved. */
  readonly interleavedRows?: number
  /** Added to every value: llama.cpp multiplies Gemma's norms by w, which are stored as w of (1 + w). */
  readonly offset?: number
}

/** A model in GGUF's terms: its architecture's metadata and its tensors in file order. */
export interface GgufModel {
  readonly architecture: string
  readonly metadata: ReadonlyMap<string, GgufMetadataValue>
  readonly tensors: readonly GgufSource[]
}

/**
 * Translates a model's config and tensor names.
 *
 * @throws EngineError `unsupported` for a family or variant that has no place in GGUF here.
 */
export function ggufModel(model: OpenModel): GgufModel {
  const { config } = model
  const architecture = ggufArchitectureOf(config)
  return {
    architecture: architecture.name,
    metadata: architectureMetadata(architecture.name, config),
    tensors: modelTensors(architecture, model),
  }
}

/** llama.cpp's name for a model's family. @throws EngineError `unsupported` listing the families that have one. */
export function ggufArchitectureOf(config: DecoderConfig): Architecture {
  const architecture = Object.hasOwn(ARCHITECTURES, config.modelType)
    ? ARCHITECTURES[config.modelType]
    : undefined
  if (!architecture) {
    throw unsupported(
      `model_type '${config.modelType}' is not written as GGUF; ${Object.keys(ARCHITECTURES).join(', ')} are`,
    )
  }
  if (config.experts) throw unsupported('models with routed experts are not written as GGUF')
  return architecture
}

function architectureMetadata(name: string, config: DecoderConfig): Map<string, GgufMetadataValue> {
  const { layerAttention, headDim } = config
  const rope = layerAttention.find(({ window }) => window === null)?.rope ?? layerAttention[0]!.rope
  const fields: [string, GgufMetadataValue | undefined][] = [
    ['block_count', { u32: config.layers }],
    ['context_length', { u32: config.maxPositions }],
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
    ['attention.sliding_window', windowOf(name, config)],
    ['attn_logit_softcapping', config.scoreSoftCap === null ? undefined : { f32: config.scoreSoftCap }],
    ['final_logit_softcapping', config.logitSoftCap === null ? undefined : { f32: config.logitSoftCap }],
  ]
  if (rope.scaling?.kind === 'linear') {
    fields.push(
      ['rope.scaling.type', { text: 'linear' }],
      ['rope.scaling.factor', { f32: rope.scaling.factor }],
    )
  }
  const present = fields.filter((field): field is [string, GgufMetadataValue] => field[1] !== undefined)
  return new Map(present.map(([key, value]) => [`${name}.${key}`, value]))
}

/** llama.cpp knows which layers of an architecture slide; its llama has no window at all. */
function windowOf(name: string, config: DecoderConfig): GgufMetadataValue | undefined {
  const windows = config.layerAttention.map(({ window }) => window).filter((window) => window !== null)
  const narrowest = Math.min(...windows)
  if (windows.length === 0 || narrowest >= config.maxPositions) return undefined
  if (['gemma2', 'gemma3', 'phi3'].includes(name)) return { u32: narrowest }
  throw unsupported(`a window of ${narrowest} tokens has no place in GGUF's ${name}`)
}

/** A module of a layer: its name in GGUF and in the checkpoint, and what is special about its rows. */
type Module = [
  name: string,
  from: string,
  outFeatures: number,
  inFeatures: number,
  extra?: Partial<GgufSource>,
]

function modelTensors(architecture: Architecture, { config, weights }: OpenModel): GgufSource[] {
  const { names, vocabSize, hiddenSize } = config
  const tensors: GgufSource[] = [
    matrix('token_embd', names.embedding, [vocabSize, hiddenSize], {
      role: config.tieWordEmbeddings ? 'output' : 'embedding',
    }),
    norm(config, 'output_norm', names.finalNorm, hiddenSize),
  ]
  if (!config.tieWordEmbeddings) {
    tensors.push(matrix('output', names.head, [vocabSize, hiddenSize], { role: 'output' }))
  }
  tensors.push(...ropeFactors(config))
  for (let layer = 0; layer < config.layers; layer++) {
    tensors.push(...layerTensors(architecture, config, layer))
  }
  const withBiases = tensors.flatMap((tensor) => {
    const bias = typeof tensor.from === 'string' ? tensor.from.replace(/\.weight$/, '.bias') : ''
    if (!weights.has(bias) || tensor.shape.length !== 2) return [tensor]
    const name = tensor.name.replace(/weight$/, 'bias')
    return [tensor, { ...tensor, name, from: bias, shape: [tensor.shape[0]!], role: 'vector' as const }]
  })
  return withBiases
}

function layerTensors({ interleaved }: Architecture, config: DecoderConfig, layer: number): GgufSource[] {
  const { names, hiddenSize, intermediateSize, heads, keyValueHeads, headDim } = config
  const [queries, keys] = [heads * headDim, keyValueHeads * headDim]
  const from = `${names.layers}.${layer}`
  const attention = `${from}.${names.attention}`
  const mlp = `${from}.${names.mlp}`
  const halves = interleaved ? { interleavedRows: headDim } : {}
  const { queryKeyValue: qkv, gateUp } = names
  const modules: Module[] =
    typeof qkv === 'string'
      ? [['attn_qkv', `${attention}.${qkv}`, queries + 2 * keys, hiddenSize]]
      : [
          ['attn_q', `${attention}.${qkv[0]}`, queries, hiddenSize, halves],
          ['attn_k', `${attention}.${qkv[1]}`, keys, hiddenSize, halves],
          ['attn_v', `${attention}.${qkv[2]}`, keys, hiddenSize, { role: 'value' }],
        ]
  modules.push(['attn_output', `${attention}.${names.output}`, hiddenSize, queries])
  if (typeof gateUp === 'string') {
    modules.push(['ffn_up', `${mlp}.${gateUp}`, 2 * intermediateSize, hiddenSize])
  } else {
    modules.push(['ffn_gate', `${mlp}.${gateUp[0]}`, intermediateSize, hiddenSize])
    modules.push(['ffn_up', `${mlp}.${gateUp[1]}`, intermediateSize, hiddenSize])
  }
  modules.push(['ffn_down', `${mlp}.${names.down}`, hiddenSize, intermediateSize, { role: 'down' }])
  return [
    ...layerNorms(config, layer),
    ...modules.map(([name, path, out, columns, extra]) =>
      matrix(`blk.${layer}.${name}`, path, [out, columns], { layer, ...extra }),
    ),
  ]
}

function layerNorms(config: DecoderConfig, layer: number): GgufSource[] {
  const { names, hiddenSize, headDim, queryKeyNorm, heads, keyValueHeads } = config
  const from = `${names.layers}.${layer}`
  const { attentionInput, attentionOutput, mlpInput, mlpOutput } = names.norms
  const found: GgufSource[] = []
  const add = (name: string, path: string | undefined, size: number) => {
    if (path !== undefined) found.push(norm(config, `blk.${layer}.${name}`, `${from}.${path}`, size))
  }
  add('attn_norm', attentionInput, hiddenSize)
  add('post_attention_norm', attentionOutput, hiddenSize)
  add('ffn_norm', mlpInput, hiddenSize)
  add('post_ffw_norm', mlpOutput, hiddenSize)
  if (queryKeyNorm !== 'none') {
    const [queryHeads, keyHeads] = queryKeyNorm === 'all heads' ? [heads, keyValueHeads] : [1, 1]
    add('attn_q_norm', `${names.attention}.q_norm`, queryHeads * headDim)
    add('attn_k_norm', `${names.attention}.k_norm`, keyHeads * headDim)
  }
  return found
}

/** Llama 3's rope scaling as the factors by which each frequency is divided. */
function ropeFactors(config: DecoderConfig): GgufSource[] {
  const { rope } = config.layerAttention[0]!
  if (rope.scaling?.kind !== 'llama3') return []
  const scaled = rotaryFrequencies(rope)
  const plain = rotaryFrequencies({ ...rope, scaling: null })
  const factors = plain.map((frequency, index) => frequency / scaled[index]!)
  return [{ name: 'rope_freqs.weight', from: factors, shape: [factors.length], role: 'vector' }]
}

function matrix(
  name: string,
  path: string,
  shape: readonly number[],
  extra: Partial<GgufSource> = {},
): GgufSource {
  return { name: `${name}.weight`, from: `${path}.weight`, shape, role: 'matrix', ...extra }
}

function norm({ normOffset }: DecoderConfig, name: string, path: string, size: number): GgufSource {
  return { ...matrix(name, path, [size], { role: 'vector' }), offset: normOffset }
}

function unsupported(message: string): EngineError {
  return new EngineError('unsupported', 'gguf_unsupported', message, { param: 'format' })
}
