import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createRandom } from '../../../engine/random.ts'
import { encodeFloat32, type WeightDType } from '../../../engine/weights/dtypes.ts'
import { WeightFolder, writeSafetensors } from '../../../engine/weights/safetensors.ts'
import type { SafetensorsDType } from '../../../engine/weights/safetensors-header.ts'

export const DTYPE_NAMES: Record<WeightDType, SafetensorsDType> = {
  float32: 'F32',
  float16: 'F16',
  bfloat16: 'BF16',
}

export const scratchFolder = () => mkdtempSync(join(tmpdir(), 'anneal-'))

/** `count` normal numbers. */
export function gaussian(count: number, seed: number): Float32Array {
  const random = createRandom(seed)
  return Float32Array.from({ length: count }, () => random.nextGaussian())
}

/** All tensors of a model folder by name, widened. */
export function allWeights(folder: string): Map<string, Float32Array> {
  const weights = WeightFolder.open(folder)
  const values = new Map([...weights.entries.keys()].map((name) => [name, weights.readFloat32(name)]))
  weights.close()
  return values
}

/** The linear layers of the tiny model: [out, in]. */
export const LINEAR_SHAPES: Record<string, [number, number]> = {
  'model.layers.0.self_attn.q_proj': [6, 8],
  'model.layers.0.mlp.down_proj': [8, 5],
  lm_head: [10, 8],
}

export interface TinyModelOptions {
  dtype?: WeightDType
  config?: Record<string, unknown>
  /** Values in place of random ones, by tensor name. */
  values?: Record<string, Float32Array>
  /** Tensors to leave out. */
  without?: string[]
}

/** A folder with everything that a model folder may have, and weights too small to compute anything. */
export function writeTinyModel(folder: string, options: TinyModelOptions = {}): string {
  const { dtype = 'bfloat16', config = {}, values = {}, without = [] } = options
  mkdirSync(folder, { recursive: true })
  const shapes: [string, number[]][] = [
    ['model.embed_tokens.weight', [10, 8]],
    ...Object.entries(LINEAR_SHAPES).map(([path, shape]): [string, number[]] => [`${path}.weight`, shape]),
    ['model.norm.weight', [8]],
  ]
  const tensors = shapes
    .filter(([name]) => !without.includes(name))
    .map(([name, shape], seed) => {
      const count = shape.reduce((product, dim) => product * dim, 1)
      const data = encodeFloat32(values[name] ?? gaussian(count, seed), dtype)
      return { name, dtype: DTYPE_NAMES[dtype], shape, data }
    })
  writeSafetensors(join(folder, 'model.safetensors'), tensors)
  const written = { model_type: 'llama', torch_dtype: dtype, tie_word_embeddings: false, ...config }
  writeFileSync(join(folder, 'config.json'), JSON.stringify(written))
  writeFileSync(join(folder, 'generation_config.json'), '{"eos_token_id": 2}')
  writeFileSync(join(folder, 'tokenizer.json'), '{"a tokenizer": true}')
  writeFileSync(join(folder, 'pytorch_model.bin'), 'a pickle')
  writeFileSync(join(folder, 'trainer_log.jsonl'), 'of the run that made it')
  writeFileSync(join(folder, 'training_loss_sft.png'), 'of that run as well')
  return folder
}
