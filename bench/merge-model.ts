import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { writeAdapter } from '../engine/adapter/peft.ts'
import { peftConfig } from '../engine/adapter/peft-config.ts'
import { createRandom } from '../engine/random.ts'
import { float32ToBfloat16 } from '../engine/weights/dtypes.ts'
import { SafetensorsWriter } from '../engine/weights/safetensors.ts'

/** TinyLlama's shape: 1.1 B parameters (https://huggingface.co/TinyLlama/TinyLlama-1.1B-Chat-v1.0, config.json). */
const CONFIG = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_act: 'silu',
  hidden_size: 2048,
  intermediate_size: 5632,
  num_hidden_layers: 22,
  num_attention_heads: 32,
  num_key_value_heads: 4,
  vocab_size: 32_000,
  max_position_embeddings: 2048,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  tie_word_embeddings: false,
  torch_dtype: 'bfloat16',
}
const LINEAR: [path: string, out: number, columns: number][] = [
  ['self_attn.q_proj', 2048, 2048],
  ['self_attn.k_proj', 256, 2048],
  ['self_attn.v_proj', 256, 2048],
  ['self_attn.o_proj', 2048, 2048],
  ['mlp.gate_proj', 5632, 2048],
  ['mlp.up_proj', 5632, 2048],
  ['mlp.down_proj', 2048, 5632],
]
const RANK = 16

/** Normal numbers of a fixed sequence; a large array repeats some. */
function noise(count: number, seed: number, scale: number): Float32Array {
  const random = createRandom(seed)
  const some = Float32Array.from({ length: Math.min(count, 100_003) }, () => random.nextGaussian() * scale)
  const values = new Float32Array(count)
  for (let at = 0; at < count; at += some.length) values.set(some.subarray(0, count - at), at)
  return values
}

/** Writes a base of random bfloat16 weights and a LoRA adapter of rank 16 on all linear layers. */
export function writeMergeInputs(folder: string): { base: string; adapter: string; parameters: number } {
  const [base, adapter] = [join(folder, 'base'), join(folder, 'adapter')]
  mkdirSync(base, { recursive: true })
  const { hidden_size: hidden, vocab_size: vocabulary, num_hidden_layers: layers } = CONFIG
  const shapes: [string, number[]][] = [
    ['model.embed_tokens.weight', [vocabulary, hidden]],
    ['model.norm.weight', [hidden]],
    ['lm_head.weight', [vocabulary, hidden]],
  ]
  const modules = new Map<
    string,
    { a: Float32Array; aShape: [number, number]; b: Float32Array; bShape: [number, number]; scale: number }
  >()
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`
    shapes.push(
      [`${prefix}.input_layernorm.weight`, [hidden]],
      [`${prefix}.post_attention_layernorm.weight`, [hidden]],
    )
    for (const [seed, [path, out, columns]] of LINEAR.entries()) {
      shapes.push([`${prefix}.${path}.weight`, [out, columns]])
      modules.set(`${prefix}.${path}`, {
        a: noise(RANK * columns, layer * 100 + seed, 0.02),
        aShape: [RANK, columns],
        b: noise(out * RANK, layer * 100 + seed + 50, 0.02),
        bShape: [out, RANK],
        scale: 2,
      })
    }
  }
  const planned = shapes.map(([name, shape]) => ({ name, dtype: 'BF16' as const, shape }))
  const writer = new SafetensorsWriter(join(base, 'model.safetensors'), planned)
  for (const [seed, { name, shape }] of planned.entries()) {
    const bits = float32ToBfloat16(
      noise(
        shape.reduce((a, b) => a * b, 1),
        seed,
        0.02,
      ),
    )
    writer.write(name, new Uint8Array(bits.buffer))
  }
  writer.finish()
  writeFileSync(join(base, 'config.json'), JSON.stringify(CONFIG))
  const config = peftConfig({
    r: RANK,
    lora_alpha: 2 * RANK,
    target_modules: LINEAR.map(([path]) => path.split('.')[1]!),
    base_model_name_or_path: base,
  })
  writeAdapter(adapter, { config, modules, saved: new Map() })
  const parameters = shapes.reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b, 1), 0)
  return { base, adapter, parameters }
}
