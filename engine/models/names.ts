import type { ModuleNames } from '../nn/config.ts'

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
