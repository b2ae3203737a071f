import {
  type LoraAdapter,
  type LoraModule,
  loraSize,
  type PeftConfig,
  peftConfig,
} from '../../../engine/adapter/peft.ts'
import { gaussian, LINEAR_SHAPES } from '../weights/tiny-model.ts'

/** A random adapter of rank 3 on modules of the tiny model. */
export function randomAdapter(
  paths: string[] = ['model.layers.0.self_attn.q_proj', 'model.layers.0.mlp.down_proj'],
  fields: Partial<PeftConfig> = {},
): LoraAdapter {
  const base = { r: 3, lora_alpha: 6, target_modules: ['q_proj', 'down_proj'], base_model_name_or_path: null }
  const config: PeftConfig = { ...peftConfig(base), ...fields }
  const modules = new Map<string, LoraModule>()
  for (const [seed, path] of paths.entries()) {
    const [out, columns] = LINEAR_SHAPES[path] ?? [4, 4]
    modules.set(path, {
      a: gaussian(3 * columns, 100 + seed),
      aShape: [3, columns],
      b: gaussian(out * 3, 200 + seed),
      bShape: [out, 3],
      scale: loraSize(config, path).scale,
    })
  }
  return { config, modules, saved: new Map() }
}
