import { type PeftConfig, parseLoraName, peftConfig } from '../../engine/adapter/peft.ts'
import type { TrainConfig } from '../../engine/train/config.ts'
import type { Parameter } from '../../engine/train/step.ts'

/** The adapter that a run is to train, as PEFT's config would ask for it. */
export function plannedAdapter(config: TrainConfig): PeftConfig {
  return peftConfig({
    r: config.lora_rank,
    lora_alpha: config.lora_alpha,
    lora_dropout: config.lora_dropout,
    use_rslora: config.use_rslora,
    use_dora: config.use_dora,
    target_modules: config.lora_target === 'all' ? 'all-linear' : config.lora_target,
    base_model_name_or_path: config.model_name_or_path,
  })
}

/** The config of the adapter that a run has trained: 'all' is spelled out as the names that it came to. */
export function adapterConfig(config: TrainConfig, parameters: readonly Parameter[]): PeftConfig {
  const planned = plannedAdapter(config)
  if (planned.target_modules !== 'all-linear') return planned
  const names = parameters.flatMap(({ name }) => parseLoraName(name)?.modulePath.split('.').at(-1) ?? [])
  return { ...planned, target_modules: [...new Set(names)].sort() }
}
