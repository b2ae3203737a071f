import { initializeLora } from '../../engine/adapter/initialize.ts'
import type { LoraAdapter } from '../../engine/adapter/peft.ts'
import type { OpenModel } from '../../engine/models/index.ts'
import type { Device } from '../../engine/onnx/device.ts'
import { readWeight } from '../../engine/packed/layout.ts'
import { sequencesOf, type TrainExample } from '../../engine/text/conversation.ts'
import { CompiledStep } from '../../engine/train/compiled-step.ts'
import { freezeSelection } from '../../engine/train/freeze.ts'
import { loraMethod, startFromAdapter } from '../../engine/train/lora-method.ts'
import type { Objective } from '../../engine/train/objectives/objective.ts'
import type { TrainingMethod } from '../../engine/train/training-method.ts'
import { plannedAdapter } from './adapter-config.ts'
import type { MethodTask } from './task.ts'

/** What a run trains, in the engine's terms. */
export function methodOf(task: MethodTask, model: OpenModel): TrainingMethod {
  const { config } = task
  if (config.finetuning_type === 'full') return { kind: 'full' }
  if (config.finetuning_type === 'lora') return loraMethod(plannedAdapter(task))
  return {
    kind: 'full',
    trains: freezeSelection(config, [...model.weights.entries.keys()], model.config.layers),
  }
}

export interface StepOptions {
  objective: Objective
  checkpointing: boolean
  /** What the backward pass reads of the layers is kept as float16. */
  halfActivations?: boolean
  /** Frozen bf16 weights are multiplied as they are stored, where the device can. */
  bfloat16?: boolean
  /** Parts of the trained tokens whose logits exist at a time. */
  lossChunks: number
  /** What it runs on; the CPU when left out. */
  device?: Device | undefined
  /** The adapter that training goes on with. */
  begin?: LoraAdapter | undefined
}

/** Compiles the training step of a run; its parameters start where a new run starts. */
export function buildStep(
  model: OpenModel,
  task: MethodTask,
  { objective, begin, device, bfloat16 = false, ...savings }: StepOptions,
  examples: readonly TrainExample[],
): Promise<CompiledStep> {
  const { config } = task
  const lengths = examples.flatMap(sequencesOf).map(({ inputIds }) => inputIds.length)
  const maxLength = lengths.reduce((longest, length) => Math.max(longest, length), 1)
  const read = (name: string) => readWeight(model.weights, name)
  const initializeMethod = config.finetuning_type === 'lora' ? initializeLora(config.seed, read) : read
  const begun = begin ? startFromAdapter(begin) : () => undefined
  const initialize = (name: string, shape: readonly number[]) =>
    objective.initialize?.(name, shape, config.seed) ?? begun(name) ?? initializeMethod(name, shape)
  return CompiledStep.create(model, {
    method: methodOf(task, model),
    objective,
    maxLength,
    ...savings,
    neftuneAlpha: config.neftune_noise_alpha,
    shiftAttention: config.shift_attn,
    packedApart: config.neat_packing,
    initialize,
    session: { ...(device && { device }), bfloat16 },
  })
}
