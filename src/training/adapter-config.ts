import { join } from 'node:path'
import { ADAPTER_CONFIG_FILE, type PeftConfig, parseLoraName, peftConfig } from '../../engine/adapter/peft.ts'
import { readPeftConfig } from '../../engine/adapter/peft-config.ts'
import { trainableLayers } from '../../engine/train/freeze.ts'
import type { Parameter } from '../../engine/train/step.ts'
import { readModelConfig } from '../../engine/weights/model-files.ts'
import { adapterRoles, type MethodTask } from './task.ts'

/** The adapter that a run is to train, as PEFT's config would ask for it; one that goes on keeps its own settings. */
export function plannedAdapter(task: MethodTask): PeftConfig {
  const { config } = task
  const { resumed } = adapterRoles(task)
  if (resumed !== undefined) {
    const own = readPeftConfig(join(resumed, ADAPTER_CONFIG_FILE))
    return { ...own, inference_mode: true, base_model_name_or_path: config.model_name_or_path }
  }
  return peftConfig({
    r: config.lora_rank,
    lora_alpha: config.lora_alpha,
    lora_dropout: config.lora_dropout,
    use_rslora: config.use_rslora,
    use_dora: config.use_dora,
    target_modules: config.lora_target === 'all' ? 'all-linear' : config.lora_target,
    layers_to_transform: config.use_llama_pro ? expandedLayers(task) : (config.layers_to_transform ?? null),
    layers_pattern: config.layers_pattern ?? null,
    rank_pattern: config.rank_pattern ?? {},
    alpha_pattern: config.alpha_pattern ?? {},
    modules_to_save: config.additional_target ?? null,
    ...tying(task),
    base_model_name_or_path: config.model_name_or_path,
  })
}

/** The config of the adapter that a run has trained: 'all' is spelled out as the names that it came to. */
export function adapterConfig(task: MethodTask, parameters: readonly Parameter[]): PeftConfig {
  const planned = plannedAdapter(task)
  if (planned.target_modules !== 'all-linear') return planned
  const names = parameters.flatMap(({ name }) => parseLoraName(name)?.modulePath.split('.').at(-1) ?? [])
  return { ...planned, target_modules: [...new Set(names)].sort() }
}

/** The blocks that LLaMA Pro has put in. */
function expandedLayers({ config, model }: MethodTask): number[] {
  const { num_hidden_layers: layers } = readModelConfig(model.baseFolder)
  return trainableLayers(config, Number(layers))
}

/**
 * A tied base has one matrix for embedding and head, and it stays one when it is trained as a whole: PEFT needs to be told,
 * since it would else train a copy for the embedding alone.
 */
function tying({ config, model }: MethodTask): Partial<PeftConfig> {
  if (!config.additional_target?.some((name) => name.endsWith('embed_tokens'))) return {}
  return readModelConfig(model.baseFolder).tie_word_embeddings === true ? { ensure_weight_tying: true } : {}
}
