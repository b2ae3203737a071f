import { CPU_TRAITS, type DeviceTraits } from '../onnx/device.ts'
import { type EncodedExample, sequencesOf, type TrainExample } from '../text/conversation.ts'
import { trainedTokenCount } from './batch.ts'
import { type TrainConfig, toCommand, toYaml } from './config.ts'
import {
  type BatchSize,
  chooseSavings,
  keepsHalf,
  type MemoryEstimate,
  type ModelSize,
  multipliesStored,
} from './estimate.ts'
import { type Plan, planSteps } from './plan.ts'
import { type PreviewWarning, warningsOf } from './preview-warnings.ts'

export interface PreviewFacts {
  model: ModelSize
  /** Memory that the run may take, in bytes; without it nothing is computed again unless asked for. */
  availableBytes?: number
  /** What the run computes on; the CPU when left out. */
  device?: DeviceTraits
  examples: readonly TrainExample[]
  evalExamples: readonly TrainExample[]
  /** Examples that cutoff_len cut. */
  truncated: number
  /** Fields of the request that are accepted and change nothing (ignoredFields in config.ts). */
  ignored?: readonly string[]
}

/** What a run would do. */
export interface TrainingPreview extends Plan {
  config: TrainConfig
  command: string
  yaml: string
  examples: number
  evalExamples: number
  truncated: number
  tokensPerEpoch: number
  trainedTokensPerEpoch: number
  parameters: number
  trainableParameters: number
  memory: MemoryEstimate
  /** Whether layers are computed again for the backward pass. */
  checkpointing: boolean
  /** Whether the backward pass reads float16. */
  halfActivations: boolean
  /** Whether frozen weights are multiplied as they are stored, in bfloat16. */
  bfloat16: boolean
  /** Parts into which the loss of a batch is cut. */
  lossChunks: number
  warnings: PreviewWarning[]
}

/** Finds what a run would do, without doing it. */
export function previewTraining(config: TrainConfig, facts: PreviewFacts): TrainingPreview {
  const { model, examples, evalExamples, device = CPU_TRAITS, availableBytes } = facts
  const plan = planSteps(config, examples.length)
  const sequences = examples.flatMap(sequencesOf)
  const trained = sequences.map(trainedTokenCount)
  const batch = largestBatch(config, sequences, trained)
  const place = { device, availableBytes, evaluates: config.do_eval && evalExamples.length > 0 }
  const savings = chooseSavings(model, config, batch, place)
  const { checkpointing } = savings
  const bfloat16 = multipliesStored(config, device, model)
  return {
    ...plan,
    config,
    command: toCommand(config),
    yaml: toYaml(config),
    examples: examples.length,
    evalExamples: evalExamples.length,
    truncated: facts.truncated,
    tokensPerEpoch: sum(sequences.map(({ inputIds }) => inputIds.length)),
    trainedTokensPerEpoch: sum(trained),
    parameters: model.parameters,
    trainableParameters: model.trainableParameters,
    ...savings,
    halfActivations: keepsHalf(config, device, checkpointing),
    bfloat16,
    warnings: warningsOf(config, plan, {
      context: model.maxPositions,
      examples: examples.length,
      evalExamples: evalExamples.length,
      truncated: facts.truncated,
      longest: batch.length,
      ignored: facts.ignored,
      device,
      checkpointing,
      bfloat16,
    }),
  }
}

/** Rows of the batch graph that an example takes: both answers of a pair are computed side by side. */
const ROWS_OF_EXAMPLE: Readonly<Record<TrainConfig['stage'], number>> = {
  pt: 1,
  sft: 1,
  kto: 1,
  rm: 2,
  dpo: 2,
}

/** The batch that shuffling could make of the longest sequences and of those with the most trained tokens. */
function largestBatch(
  config: TrainConfig,
  sequences: readonly EncodedExample[],
  trained: readonly number[],
): BatchSize {
  const rows = Math.min(config.per_device_train_batch_size * ROWS_OF_EXAMPLE[config.stage], sequences.length)
  const most = [...trained].sort((a, b) => b - a).slice(0, rows)
  const length = sequences.reduce((longest, { inputIds }) => Math.max(longest, inputIds.length), 0)
  return { rows, length, trained: sum(most) }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
