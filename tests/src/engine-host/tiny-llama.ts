import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createRandom } from '../../../engine/random.ts'
import { writeSafetensors } from '../../../engine/weights/safetensors.ts'
import { CHATML, writeModelFolder } from '../../engine/text/byte-tokenizer.ts'

const HIDDEN = 16
const VOCABULARY = 258
const LAYERS = 2
const INNER = 32

/**
 * A folder of a llama with random weights and one token per byte, that answers in lowercase letters: the head is zero
 * for everything else. It never ends by itself. `maxPositions` is its context.
 */
export function tinyLlama(seed = 1, maxPositions = 4096): string {
  const folder = writeModelFolder({
    'tokenizer_config.json': { chat_template: CHATML },
    'config.json': {
      model_type: 'llama',
      vocab_size: VOCABULARY,
      hidden_size: HIDDEN,
      intermediate_size: INNER,
      num_hidden_layers: LAYERS,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      max_position_embeddings: maxPositions,
      rms_norm_eps: 1e-5,
      tie_word_embeddings: false,
      eos_token_id: 257,
    },
  })
  writeTensors(join(folder, 'model.safetensors'), weights(seed))
  return folder
}

/** A PEFT folder of rank 2 on the first layer's down projection, strong enough to change every answer. */
export function tinyAdapter(baseFolder: string, seed = 9): string {
  const folder = join(baseFolder, `adapter-${seed}`)
  mkdirSync(folder)
  const name = (matrix: string) => `base_model.model.model.layers.0.mlp.down_proj.lora_${matrix}.weight`
  const tensors = { [name('A')]: normal([2, INNER], seed, 3), [name('B')]: normal([HIDDEN, 2], seed + 1, 3) }
  writeTensors(join(folder, 'adapter_model.safetensors'), tensors)
  const config = {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    r: 2,
    lora_alpha: 4,
    lora_dropout: 0,
    bias: 'none',
  }
  const more = { target_modules: ['down_proj'], fan_in_fan_out: false, base_model_name_or_path: baseFolder }
  writeFileSync(join(folder, 'adapter_config.json'), JSON.stringify({ ...config, ...more }))
  return folder
}

interface Weights {
  shape: number[]
  data: Float32Array
}

function weights(seed: number): Record<string, Weights> {
  const tensors: Record<string, Weights> = {}
  let stream = seed * 1000
  const add = (name: string, shape: number[]) => {
    tensors[name] = normal(shape, stream++, 0.5)
  }
  const norm = (name: string) => {
    tensors[name] = { shape: [HIDDEN], data: new Float32Array(HIDDEN).fill(1) }
  }
  add('model.embed_tokens.weight', [VOCABULARY, HIDDEN])
  for (let layer = 0; layer < LAYERS; layer++) {
    const at = `model.layers.${layer}`
    add(`${at}.self_attn.q_proj.weight`, [HIDDEN, HIDDEN])
    add(`${at}.self_attn.k_proj.weight`, [HIDDEN / 2, HIDDEN])
    add(`${at}.self_attn.v_proj.weight`, [HIDDEN / 2, HIDDEN])
    add(`${at}.self_attn.o_proj.weight`, [HIDDEN, HIDDEN])
    add(`${at}.mlp.gate_proj.weight`, [INNER, HIDDEN])
    add(`${at}.mlp.up_proj.weight`, [INNER, HIDDEN])
    add(`${at}.mlp.down_proj.weight`, [HIDDEN, INNER])
    norm(`${at}.input_layernorm.weight`)
    norm(`${at}.post_attention_layernorm.weight`)
  }
  norm('model.norm.weight')
  add('lm_head.weight', [VOCABULARY, HIDDEN])
  const head = tensors['lm_head.weight']!.data
  head.fill(0, 0, 97 * HIDDEN)
  head.fill(0, 123 * HIDDEN)
  return tensors
}

function normal(shape: number[], seed: number, scale: number): Weights {
  const random = createRandom(seed)
  const count = shape.reduce((product, dim) => product * dim, 1)
  return { shape, data: Float32Array.from({ length: count }, () => scale * random.nextGaussian()) }
}

function writeTensors(path: string, tensors: Record<string, Weights>): void {
  const planned = Object.entries(tensors).map(([name, { shape, data }]) => ({
    name,
    dtype: 'F32' as const,
    shape,
    data: new Uint8Array(data.buffer),
  }))
  writeSafetensors(path, planned)
}
