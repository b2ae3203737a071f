import { initializeLora } from '../../engine/adapter/initialize.ts'
import { loraMethod } from '../../engine/adapter/method.ts'
import type { OpenModel } from '../../engine/models/index.ts'
import { readWeight } from '../../engine/quant/packed-layout.ts'
import { sequencesOf, type TrainExample } from '../../engine/text/conversation.ts'
import { CompiledStep, type TrainingMethod } from '../../engine/train/compiled-step.ts'
import type { TrainConfig } from '../../engine/train/config.ts'
import { freezeSelection } from '../../engine/train/freeze.ts'
import type { Objective } from '../../engine/train/objectives/objective.ts'
import { plannedAdapter } from './adapter-config.ts'

/** What a configuration trains, in the engine's terms. */
export function methodOf(config: TrainConfig, model: OpenModel): TrainingMethod {
  if (config.finetuning_type === 'full') return { kind: 'full' }
  if (config.finetuning_type === 'lora') return loraMethod(plannedAdapter(config))
  return {
    kind: 'full',
    trains: freezeSelection(config, [...model.weights.entries.keys()], model.config.layers),
  }
}

/** Compiles the training step of a run; its parameters start where a new run starts. */
export function buildStep(
  model: OpenModel,
  config: TrainConfig,
  { objective, ...savings }: { objective: Objective; checkpointing: boolean; lossChunks: number },
  examples: readonly TrainExample[],
): Promise<CompiledStep> {
  const lengths = examples.flatMap(sequencesOf).map(({ inputIds }) => inputIds.length)
  const maxLength = lengths.reduce((longest, length) => Math.max(longest, length), 1)
  const read = (name: string) => readWeight(model.weights, name)
  const initializeMethod = config.finetuning_type === 'lora' ? initializeLora(config.seed, read) : read
  const initialize = (name: string, shape: readonly number[]) =>
    objective.initialize?.(name, shape, config.seed) ?? initializeMethod(name, shape)
  return CompiledStep.create(model, {
    method: methodOf(config, model),
    objective,
    maxLength,
    ...savings,
    neftuneAlpha: config.neftune_noise_alpha,
    shiftAttention: config.shift_attn,
    packedApart: config.neat_packing,
    initialize,
  })
}
