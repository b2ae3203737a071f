import { type LoraAdapter, type LoraModule, peftConfig } from '../../../engine/adapter/peft.ts'
import { openModel } from '../../../engine/models/index.ts'
import { gaussian } from '../weights/tiny-model.ts'

/** A random adapter on every q_proj and down_proj of a model, large enough to change what it answers. */
export function randomAdapter(modelFolder: string, rank: number): LoraAdapter {
  const { weights } = openModel(modelFolder)
  const modules = new Map<string, LoraModule>()
  for (const { name, shape } of weights.entries.values()) {
    if (!/(q_proj|down_proj)\.weight$/.test(name)) continue
    const [out, columns] = shape as [number, number]
    modules.set(name.replace(/\.weight$/, ''), {
      a: gaussian(rank * columns, 1 + modules.size).map((value) => value * 0.1),
      aShape: [rank, columns],
      b: gaussian(out * rank, 100 + modules.size).map((value) => value * 0.1),
      bShape: [out, rank],
      scale: 2,
    })
  }
  weights.close()
  const fields = { r: rank, lora_alpha: 2 * rank, target_modules: ['q_proj', 'down_proj'] }
  return { config: peftConfig({ ...fields, base_model_name_or_path: null }), modules, saved: new Map() }
}
