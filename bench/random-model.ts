import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createRandom } from '../engine/random.ts'
import { encodeFloat32 } from '../engine/weights/dtypes.ts'
import { SafetensorsWriter } from '../engine/weights/safetensors-writer.ts'

/** A llama's size. */
export interface LlamaShape {
  hidden: number
  intermediate: number
  layers: number
  heads: number
  keyValueHeads: number
  vocabulary: number
}

export const SHAPES: Record<string, LlamaShape> = {
  // TinyLlama-1.1B (arXiv:2401.02385)
  'tinyllama-1.1b': {
    hidden: 2048,
    intermediate: 5632,
    layers: 22,
    heads: 32,
    keyValueHeads: 4,
    vocabulary: 32_000,
  },
  // Two layers below the vocabulary of Qwen2.5, to see what embedding and head take
  'wide-vocabulary': {
    hidden: 2048,
    intermediate: 5632,
    layers: 2,
    heads: 32,
    keyValueHeads: 4,
    vocabulary: 151_936,
  },
  // Qwen2.5-0.5B's size without its biases
  'llama-0.5b': {
    hidden: 896,
    intermediate: 4864,
    layers: 24,
    heads: 14,
    keyValueHeads: 2,
    vocabulary: 151_936,
  },
}
const BLOCK = 1 << 20

/**
 * A folder with a llama of the named shape in bf16, made once in the temp folder. Its weights are normal with standard
 * deviation 0.02, one block of them over and over: memory and speed don't depend on their values.
 */
export function randomModel(name: string): string {
  const shape = SHAPES[name]
  if (!shape) throw new Error(`no shape ${name}; there are ${Object.keys(SHAPES).join(', ')}`)
  const folder = join(tmpdir(), 'anneal-bench', name)
  if (existsSync(join(folder, 'model.safetensors'))) return folder
  mkdirSync(folder, { recursive: true })
  const random = createRandom(1)
  const normal = Float32Array.from({ length: BLOCK }, () => 0.02 * random.nextGaussian())
  const [matrix, ones] = [normal, new Float32Array(BLOCK).fill(1)].map((v) => encodeFloat32(v, 'bfloat16'))
  const tensors = tensorsOf(shape)
  const planned = tensors.map((tensor) => ({ ...tensor, dtype: 'BF16' as const }))
  const writer = new SafetensorsWriter(join(folder, 'model.safetensors'), planned)
  for (const { name: tensor, shape: dims } of tensors) {
    const block = dims.length > 1 ? matrix! : ones!
    let left = 2 * dims.reduce((product, dim) => product * dim, 1)
    for (; left > 0; left -= block.length) writer.append(tensor, block.subarray(0, left))
  }
  writer.finish()
  writeFileSync(join(folder, 'config.json'), JSON.stringify(configOf(shape), null, 1))
  return folder
}

function tensorsOf({ hidden, intermediate, layers, heads, keyValueHeads, vocabulary }: LlamaShape) {
  const keyWidth = (hidden / heads) * keyValueHeads
  const layer = (index: number): [string, number[]][] =>
    Object.entries({
      'input_layernorm.weight': [hidden],
      'post_attention_layernorm.weight': [hidden],
      'self_attn.q_proj.weight': [hidden, hidden],
      'self_attn.k_proj.weight': [keyWidth, hidden],
      'self_attn.v_proj.weight': [keyWidth, hidden],
      'self_attn.o_proj.weight': [hidden, hidden],
      'mlp.gate_proj.weight': [intermediate, hidden],
      'mlp.up_proj.weight': [intermediate, hidden],
      'mlp.down_proj.weight': [hidden, intermediate],
    }).map(([tensor, dims]) => [`model.layers.${index}.${tensor}`, dims])
  const all: [string, number[]][] = [
    ['model.embed_tokens.weight', [vocabulary, hidden]],
    ...Array.from({ length: layers }, (_, index) => layer(index)).flat(),
    ['model.norm.weight', [hidden]],
    ['lm_head.weight', [vocabulary, hidden]],
  ]
  return all.map(([name, shape]) => ({ name, shape }))
}

function configOf({ hidden, intermediate, layers, heads, keyValueHeads, vocabulary }: LlamaShape) {
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: keyValueHeads,
    vocab_size: vocabulary,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    hidden_act: 'silu',
    tie_word_embeddings: false,
    torch_dtype: 'bfloat16',
  }
}
