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

/** The names that most families share. */
export const llamaNames: ModuleNames = {
  embedding: 'model.embed_tokens',
  layers: 'model.layers',
  finalNorm: 'model.norm',
  head: 'lm_head',
  attention: 'self_attn',
  queryKeyValue: ['q_proj', 'k_proj', 'v_proj'],
  output: 'o_proj',
  mlp: 'mlp',
  gateUp: ['gate_proj', 'up_proj'],
  down: 'down_proj',
  norms: { attentionInput: 'input_layernorm', mlpInput: 'post_attention_layernorm' },
}
