import type { DecoderConfig } from '../nn/config.ts'
import { rotaryFrequencies } from '../nn/rope.ts'
import type { Architecture } from './families.ts'

/** The role that decides how finely a tensor is quantized. */
export type TensorRole = 'embedding' | 'output' | 'value' | 'down' | 'matrix' | 'vector'

/** A tensor of the checkpoint. */
export interface CheckpointTensor {
  readonly name: string
  readonly shape: readonly number[]
}

/** One tensor of a file and what it is in the checkpoint. */
export interface GgufSource {
  /** Name in the file. */
  readonly name: string
  /** Tensors of the checkpoint that follow one another in it, or values made here. */
  readonly from: readonly CheckpointTensor[] | Float32Array
  readonly shape: readonly number[]
  readonly role: TensorRole
  readonly layer?: number
  /** Rows of each head, where its two rotary halves are interleaved. */
  readonly interleavedRows?: number
  /** Added to every value: llama.cpp multiplies Gemma's norms by w, which are stored as w of (1 + w). */
  readonly offset?: number
}

/**
 * Every tensor of a GGUF file, in file order; import and export go by this one list.
 *
 * @param hasBias whether a matrix of the file has a bias, by its name there and the bias's name in the checkpoint.
 */
export function modelTensors(
  architecture: Architecture,
  config: DecoderConfig,
  hasBias: (matrix: string, bias: string) => boolean,
): GgufSource[] {
  const { names, vocabSize, hiddenSize, tieWordEmbeddings } = config
  const tensors: GgufSource[] = [
    matrix('token_embd', names.embedding, [vocabSize, hiddenSize], {
      role: tieWordEmbeddings && architecture.output !== 'own' ? 'output' : 'embedding',
    }),
    norm(config, 'output_norm', names.finalNorm, hiddenSize),
  ]
  if (!tieWordEmbeddings || architecture.output === 'own') {
    const head = tieWordEmbeddings ? names.embedding : names.head
    tensors.push(matrix('output', head, [vocabSize, hiddenSize], { role: 'output' }))
  }
  tensors.push(...ropeFactors(config))
  for (let layer = 0; layer < config.layers; layer++) {
    tensors.push(...layerTensors(architecture, config, layer))
  }
  return tensors.flatMap((tensor) => {
    if (tensor.from instanceof Float32Array || tensor.shape.length !== 2) return [tensor]
    const bias = tensor.from[0]!.name.replace(/\.weight$/, '.bias')
    if (!hasBias(tensor.name, bias)) return [tensor]
    const shape = [tensor.shape[0]!]
    const name = tensor.name.replace(/weight$/, 'bias')
    return [tensor, { ...tensor, name, from: [{ name: bias, shape }], shape, role: 'vector' as const }]
  })
}

/** A module of a layer: its name in GGUF and in the checkpoint, and what is special about its rows. */
type Module = [
  name: string,
  from: string,
  outFeatures: number,
  inFeatures: number,
  extra?: Partial<GgufSource>,
]

function layerTensors(architecture: Architecture, config: DecoderConfig, layer: number): GgufSource[] {
  const inLayer = ([name, path, out, columns, extra]: Module) =>
    matrix(`blk.${layer}.${name}`, path, [out, columns], { layer, ...extra })
  return [
    ...layerNorms(config, layer),
    ...attentionModules(architecture, config, layer).map(inLayer),
    ...(config.experts?.layers.has(layer)
      ? expertTensors(config, layer)
      : mlpModules(config, layer).map(inLayer)),
  ]
}

function attentionModules({ interleaved }: Architecture, config: DecoderConfig, layer: number): Module[] {
  const { names, hiddenSize, heads, keyValueHeads, headDim } = config
  const [queries, keys] = [heads * headDim, keyValueHeads * headDim]
  const path = `${names.layers}.${layer}.${names.attention}`
  const halves = interleaved ? { interleavedRows: headDim } : {}
  const { queryKeyValue: qkv } = names
  const inputs: Module[] =
    typeof qkv === 'string'
      ? [['attn_qkv', `${path}.${qkv}`, queries + 2 * keys, hiddenSize]]
      : [
          ['attn_q', `${path}.${qkv[0]}`, queries, hiddenSize, halves],
          ['attn_k', `${path}.${qkv[1]}`, keys, hiddenSize, halves],
          ['attn_v', `${path}.${qkv[2]}`, keys, hiddenSize, { role: 'value' }],
        ]
  return [...inputs, ['attn_output', `${path}.${names.output}`, hiddenSize, queries]]
}

function mlpModules({ names, hiddenSize, intermediateSize }: DecoderConfig, layer: number): Module[] {
  const path = `${names.layers}.${layer}.${names.mlp}`
  const { gateUp } = names
  const inputs: Module[] =
    typeof gateUp === 'string'
      ? [['ffn_up', `${path}.${gateUp}`, 2 * intermediateSize, hiddenSize]]
      : [
          ['ffn_gate', `${path}.${gateUp[0]}`, intermediateSize, hiddenSize],
          ['ffn_up', `${path}.${gateUp[1]}`, intermediateSize, hiddenSize],
        ]
  return [...inputs, ['ffn_down', `${path}.${names.down}`, hiddenSize, intermediateSize, { role: 'down' }]]
}

/** The router, which stays float32, and each projection's experts as one tensor [experts, out, in]. */
function expertTensors({ names, hiddenSize, experts }: DecoderConfig, layer: number): GgufSource[] {
  const { count, intermediateSize } = experts!
  const { block, router, gateUp, down } = names.experts!
  const path = `${names.layers}.${layer}.${block}`
  const stack = (name: string, module: string, shape: readonly number[], role: TensorRole): GgufSource => ({
    name: `blk.${layer}.${name}.weight`,
    from: Array.from({ length: count }, (_, e) => ({ name: `${path}.experts.${e}.${module}.weight`, shape })),
    shape: [count, ...shape],
    role,
    layer,
  })
  return [
    matrix(`blk.${layer}.ffn_gate_inp`, `${path}.${router}`, [count, hiddenSize], { layer, role: 'vector' }),
    stack('ffn_gate_exps', gateUp[0], [intermediateSize, hiddenSize], 'matrix'),
    stack('ffn_up_exps', gateUp[1], [intermediateSize, hiddenSize], 'matrix'),
    stack('ffn_down_exps', down, [hiddenSize, intermediateSize], 'down'),
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

/** What each frequency is divided by, in Llama 3's rope scaling and, for short and long contexts, in longrope. */
function ropeFactors(config: DecoderConfig): GgufSource[] {
  const { rope } = config.layerAttention[0]!
  const { scaling } = rope
  const vector = (name: string, factors: Float32Array): GgufSource => ({
    name,
    from: factors,
    shape: [factors.length],
    role: 'vector',
  })
  if (scaling?.kind === 'longrope') {
    const { shortFactors, longFactors } = scaling
    return [
      vector('rope_factors_long.weight', Float32Array.from(longFactors)),
      vector('rope_factors_short.weight', Float32Array.from(shortFactors)),
    ]
  }
  if (scaling?.kind !== 'llama3') return []
  const scaled = rotaryFrequencies(rope)
  const plain = rotaryFrequencies({ ...rope, scaling: null })
  const factors = plain.map((frequency, index) => frequency / scaled[index]!)
  return [vector('rope_freqs.weight', factors)]
}

function matrix(
  name: string,
  path: string,
  shape: readonly number[],
  extra: Partial<GgufSource> = {},
): GgufSource {
  return {
    name: `${name}.weight`,
    from: [{ name: `${path}.weight`, shape }],
    shape,
    role: 'matrix',
    ...extra,
  }
}

function norm({ normOffset }: DecoderConfig, name: string, path: string, size: number): GgufSource {
  return { ...matrix(name, path, [size], { role: 'vector' }), offset: normOffset }
}
