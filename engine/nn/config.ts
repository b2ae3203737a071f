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
  /** Stretches contexts beyond `reach` alone, by their length; that is not computed here. */
  | { kind: 'dynamic'; reach: number }
  | {
      kind: 'yarn'
      factor: number
      originalMaxPositions: number
      /** Rotations over the original context from which on frequencies stay, and below which they are divided. */
      betaFast: number
      betaSlow: number
      /** Whether the bounds between them are whole dimensions. */
      truncate: boolean
      /** What cos and sin are multiplied by. */
      attentionFactor: number
    }
  | {
      kind: 'longrope'
      /** What each frequency is divided by up to `reach` tokens, and beyond (which is not computed here). */
      shortFactors: readonly number[]
      longFactors: readonly number[]
      reach: number
      attentionFactor: number
    }

/** Rotary position embedding of the heads (RoFormer, arXiv:2104.09864). */
export interface RopeConfig {
  readonly theta: number
  readonly scaling: RopeScaling | null
  /** Dimensions of each head that are rotated, from its start; the others pass unchanged. */
  readonly rotaryDim: number
  /** Whether dimensions 2i and 2i + 1 rotate together, rather than i and i + rotaryDim / 2. */
  readonly interleaved: boolean
}

/** What differs between the attention of one layer and another's. */
export interface LayerAttention {
  /** A token sees itself and the window - 1 tokens before it; null: all before it. */
  readonly window: number | null
  readonly rope: RopeConfig
}

export type Activation = 'silu' | 'gelu_tanh'

/** Routed feed-forward experts (Mixtral of Experts, arXiv:2401.04088). */
export interface ExpertsConfig {
  readonly count: number
  readonly perToken: number
  readonly intermediateSize: number
  /** Whether the chosen experts' weights are scaled to a sum of 1. */
  readonly normalizeWeights: boolean
  /** Layers that have them; the others have one dense mlp. */
  readonly layers: ReadonlySet<number>
}

/** Where a checkpoint keeps what: the names of a family's modules, without '.weight' and '.bias'. */
export interface ModuleNames {
  readonly embedding: string
  /** Layer N is `${layers}.${N}`. */
  readonly layers: string
  readonly finalNorm: string
  readonly head: string
  readonly attention: string
  /** A module each, or one whose rows are query, key and value in turn. */
  readonly queryKeyValue: readonly [query: string, key: string, value: string] | string
  readonly output: string
  readonly mlp: string
  /** A module each, or one whose rows are gate and up in turn. */
  readonly gateUp: readonly [gate: string, up: string] | string
  readonly down: string
  /** Norms of a layer; those that a family does without are left out. */
  readonly norms: {
    readonly attentionInput?: string
    readonly attentionOutput?: string
    readonly mlpInput?: string
    readonly mlpOutput?: string
  }
  readonly experts?: {
    readonly block: string
    readonly router: string
    readonly gateUp: readonly [gate: string, up: string]
    readonly down: string
  }
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
  readonly tieWordEmbeddings: boolean
  /** Factor on embedded tokens. */
  readonly embeddingScale: number
  readonly normEpsilon: number
  /** What norms add to their stored weights: Gemma stores w of (1 + w). */
  readonly normOffset: 0 | 1
  readonly activation: Activation
  /** One entry for each layer. */
  readonly layerAttention: readonly LayerAttention[]
  /** Factor on query · key. */
  readonly attentionScale: number
  /** c of c·tanh(x/c) on attention scores, and on the output logits. */
  readonly scoreSoftCap: number | null
  readonly logitSoftCap: number | null
  /** Norms on query and key: of each head, or of all heads together. */
  readonly queryKeyNorm: 'none' | 'each head' | 'all heads'
  /** Which projections have a bias. */
  readonly bias: { readonly queryKeyValue: boolean; readonly output: boolean; readonly mlp: boolean }
  readonly experts: ExpertsConfig | null
  /** Whether the rows of the output head are scaled to length 1 before use. */
  readonly normalizeHead: boolean
  readonly names: ModuleNames
}

/** Units of all mlps that one token goes through in a layer, at most: of the chosen experts where there are some. */
export function mlpWidth({ experts, intermediateSize, layers }: DecoderConfig): number {
  if (!experts) return intermediateSize
  const routed = experts.perToken * experts.intermediateSize
  return experts.layers.size < layers ? Math.max(routed, intermediateSize) : routed
}
