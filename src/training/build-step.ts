import { initializeLora } from '../../engine/adapter/initialize.ts'
import type { OpenModel } from '../../engine/models/index.ts'
import type { EncodedExample } from '../../engine/text/conversation.ts'
import { CompiledStep, type TrainingMethod } from '../../engine/train/compiled-step.ts'
import type { TrainConfig } from '../../engine/train/config.ts'

/** What a configuration trains, in the engine's terms. */
export function methodOf(config: TrainConfig): TrainingMethod {
  if (config.finetuning_type === 'full') return { kind: 'full' }
  return {
    kind: 'lora',
    rank: config.lora_rank,
    scale: config.lora_alpha / (config.use_rslora ? Math.sqrt(config.lora_rank) : config.lora_rank),
    dropout: config.lora_dropout,
    targets: config.lora_target,
  }
}

/** Compiles the training step of a run; its parameters start where a new run starts. */
export function buildStep(
  model: OpenModel,
  config: TrainConfig,
  examples: readonly EncodedExample[],
): Promise<CompiledStep> {
  const maxLength = examples.reduce((longest, { inputIds }) => Math.max(longest, inputIds.length), 1)
  const initialize =
    config.finetuning_type === 'full'
      ? (name: string) => model.weights.readFloat32(name)
      : initializeLora(config.seed)
  return CompiledStep.create(model, { method: methodOf(config), maxLength, initialize })
}
