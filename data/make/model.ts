import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createRandom } from '../../engine/random.ts'
import { elementCount } from '../../engine/tensor.ts'
import { encodeFloat32 } from '../../engine/weights/dtypes.ts'
import { writeSafetensors } from '../../engine/weights/safetensors.ts'
import { SPECIAL_TOKENS, VOCAB_SIZE } from './tokenizer.ts'

export const MAX_POSITIONS = 512
const HIDDEN = 256
const INTERMEDIATE = 640
const LAYERS = 5
const HEADS = 4
const KEY_VALUE_HEADS = 2
const HEAD_DIM = 64
const INITIALIZER_RANGE = 0.02

const [pad, , end] = SPECIAL_TOKENS
const padId = SPECIAL_TOKENS.indexOf(pad)
const endId = SPECIAL_TOKENS.indexOf(end)

/** 3,967,744 parameters: 7.9 MB in bfloat16. Every width is a multiple of 128, the usual quantization group. */
export const CONFIG = {
  architectures: ['LlamaForCausalLM'],
  attention_bias: false,
  attention_dropout: 0,
  bos_token_id: padId,
  eos_token_id: endId,
  head_dim: HEAD_DIM,
  hidden_act: 'silu',
  hidden_size: HIDDEN,
  initializer_range: INITIALIZER_RANGE,
  intermediate_size: INTERMEDIATE,
  max_position_embeddings: MAX_POSITIONS,
  mlp_bias: false,
  model_type: 'llama',
  num_attention_heads: HEADS,
  num_hidden_layers: LAYERS,
  num_key_value_heads: KEY_VALUE_HEADS,
  pad_token_id: padId,
  rms_norm_eps: 1e-5,
  rope_scaling: null,
  rope_theta: 10000,
  tie_word_embeddings: true,
  torch_dtype: 'bfloat16',
  use_cache: true,
  vocab_size: VOCAB_SIZE,
} as const

/** How chats with the model are sampled by default: it knows facts, so the likeliest token is the best. */
const GENERATION_CONFIG = {
  bos_token_id: padId,
  do_sample: false,
  eos_token_id: endId,
  max_new_tokens: 128,
  pad_token_id: padId,
} as const

/** Tensor names and shapes, as transformers names them; linear weights are [out, in]. */
export function tensorShapes(): Map<string, number[]> {
  const shapes = new Map<string, number[]>([['model.embed_tokens.weight', [VOCAB_SIZE, HIDDEN]]])
  for (let layer = 0; layer < LAYERS; layer++) {
    const add = (name: string, shape: number[]) => shapes.set(`model.layers.${layer}.${name}.weight`, shape)
    add('input_layernorm', [HIDDEN])
    add('self_attn.q_proj', [HEADS * HEAD_DIM, HIDDEN])
    add('self_attn.k_proj', [KEY_VALUE_HEADS * HEAD_DIM, HIDDEN])
    add('self_attn.v_proj', [KEY_VALUE_HEADS * HEAD_DIM, HIDDEN])
    add('self_attn.o_proj', [HIDDEN, HEADS * HEAD_DIM])
    add('post_attention_layernorm', [HIDDEN])
    add('mlp.gate_proj', [INTERMEDIATE, HIDDEN])
    add('mlp.up_proj', [INTERMEDIATE, HIDDEN])
    add('mlp.down_proj', [HIDDEN, INTERMEDIATE])
  }
  return shapes.set('model.norm.weight', [HIDDEN])
}

/**
 * Start values: norms are one, matrices normal with deviation 0.02, and 0.02 / √(2 layers) where they write into the
 * residual stream (GPT-2's scheme).
 */
function initialWeights(seed: number): { name: string; shape: number[]; values: Float32Array }[] {
  const random = createRandom(seed)
  return [...tensorShapes()].map(([name, shape]) => {
    const values = new Float32Array(elementCount(shape))
    const residual = /\.(o_proj|down_proj)\./.test(name)
    const deviation = residual ? INITIALIZER_RANGE / Math.sqrt(2 * LAYERS) : INITIALIZER_RANGE
    if (shape.length === 1) values.fill(1)
    else for (let i = 0; i < values.length; i++) values[i] = deviation * random.nextGaussian()
    return { name, shape, values }
  })
}

/** Writes config.json, generation_config.json and model.safetensors with random float32 weights. */
export function writeUntrainedModel(folder: string, seed: number): void {
  const write = (name: string, content: unknown) =>
    writeFileSync(join(folder, name), `${JSON.stringify(content, null, 2)}\n`)
  write('config.json', CONFIG)
  write('generation_config.json', GENERATION_CONFIG)
  const tensors = initialWeights(seed).map(({ name, shape, values }) => {
    return { name, shape, dtype: 'F32' as const, data: encodeFloat32(values, 'float32') }
  })
  writeSafetensors(join(folder, 'model.safetensors'), tensors)
}
