import { initializeLora } from '../../engine/adapter/initialize.ts'
import { loraMethod } from '../../engine/adapter/method.ts'
import type { OpenModel } from '../../engine/models/index.ts'
import type { EncodedExample } from '../../engine/text/conversation.ts'
import { CompiledStep, type TrainingMethod } from '../../engine/train/compiled-step.ts'
import type { TrainConfig } from '../../engine/train/config.ts'
import { plannedAdapter } from './adapter-config.ts'

/** What a configuration trains, in the engine's terms. */
export function methodOf(config: TrainConfig): TrainingMethod {
  return config.finetuning_type === 'full' ? { kind: 'full' } : loraMethod(plannedAdapter(config))
}

/** Compiles the training step of a run; its parameters start where a new run starts. */
export function buildStep(
  model: OpenModel,
  config: TrainConfig,
  examples: readonly EncodedExample[],
): Promise<CompiledStep> {
  const maxLength = examples.reduce((longest, { inputIds }) => Math.max(longest, inputIds.length), 1)
  const read = (name: string) => model.weights.readFloat32(name)
  const initialize = config.finetuning_type === 'full' ? read : initializeLora(config.seed, read)
  return CompiledStep.create(model, { method: methodOf(config), maxLength, initialize })
}
