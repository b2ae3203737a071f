import { CPU_TRAITS, type DeviceTraits } from '../onnx/device.ts'
import { type EncodedExample, sequencesOf, type TrainExample } from '../text/conversation.ts'
import { trainedTokenCount } from './batch.ts'
import { type TrainConfig, toCommand, toYaml } from './config.ts'
import { type BatchSize, chooseSavings, keepsHalf, type MemoryEstimate, type ModelSize } from './estimate.ts'
import { type Plan, planSteps } from './plan.ts'
import { warmupSteps } from './schedule.ts'

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

export interface PreviewWarning {
  code: string
  message: string
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
  /** Parts into which the loss of a batch is cut. */
  lossChunks: number
  warnings: PreviewWarning[]
}

/** At most this many examples are a small set, which a model only takes over after many passes. */
const SMALL_SET = 200
const EPOCHS_FOR_SMALL_SET = 300
/** Above these, training usually diverges. */
const HIGH_LEARNING_RATE = { lora: 2e-3, freeze: 5e-4, full: 5e-4 }

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
    warnings: warningsOf(config, plan, { ...facts, device, checkpointing, longest: batch.length }),
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

function warningsOf(
  config: TrainConfig,
  plan: Plan,
  facts: PreviewFacts & { device: DeviceTraits; checkpointing: boolean; longest: number },
): PreviewWarning[] {
  const { maxPositions: context = Number.POSITIVE_INFINITY } = facts.model
  const { longest, examples, evalExamples, truncated, ignored = [], device, checkpointing } = facts
  const total = plan.totalSteps
  const rate = config.learning_rate
  const candidates: [applies: boolean, code: string, message: string][] = [
    [
      // Preferences are not taken over by heart: a pass or two is usual, whatever the size.
      (config.stage === 'sft' || config.stage === 'pt') &&
        examples.length <= SMALL_SET &&
        total < EPOCHS_FOR_SMALL_SET * plan.stepsPerEpoch,
      'few_epochs',
      `${examples.length} samples, small set: use at least ${EPOCHS_FOR_SMALL_SET} epochs if the model is to take them ` +
        `over; this run makes ${Number((total / plan.stepsPerEpoch).toFixed(2))}.`,
    ],
    [
      truncated > 0,
      'truncated_examples',
      `${truncated} of ${examples.length} examples reach cutoff_len = ${config.cutoff_len} and are cut there.`,
    ],
    [
      longest > context,
      'longer_than_context',
      `The longest example has ${longest} tokens, and this model's context ${context}: what lies beyond is learned at places ` +
        `that chat never uses. cutoff_len=${context} keeps to it.`,
    ],
    [
      rate > HIGH_LEARNING_RATE[config.finetuning_type],
      'high_learning_rate',
      `learning_rate ${rate} is very high for ${config.finetuning_type} training; 1e-4 (lora) or 1e-5 (full) is usual.`,
    ],
    [
      warmupSteps(config, total) >= total && config.lr_scheduler_type !== 'constant',
      'warmup_too_long',
      `The warm-up of ${warmupSteps(config, total)} steps does not end within the ${total} steps of the run.`,
    ],
    [
      config.logging_steps > total,
      'few_log_entries',
      `logging_steps ${config.logging_steps} is more than the ${total} steps of the run: only the last one is logged.`,
    ],
    [
      config.save_only_model,
      'not_resumable',
      'save_only_model: checkpoints will have no optimizer state, so an interrupted run starts again from step 0.',
    ],
    [
      config.eval_strategy === 'steps' && evalExamples.length === 0,
      'nothing_to_evaluate',
      'No example is held out, so there is nothing to evaluate on.',
    ],
    [
      config.bf16,
      'computes_in_float32',
      'bf16 is accepted, but training computes in float32, which is at least as exact.',
    ],
    [
      config.fp16 && !device.hasHalf,
      'fp16_unavailable',
      `fp16 is left out: ${device.kind} has no float16 here (WebGPU's shader-f16). The run takes more memory and is at least as exact.`,
    ],
    [
      config.fp16 && device.hasHalf && checkpointing,
      'fp16_without_effect',
      'fp16 changes nothing: with gradient checkpointing the layers are computed again, so their results are not kept.',
    ],
    [ignored.length > 0, 'ignored_fields', `These fields change nothing here: ${ignored.join(', ')}.`],
  ]
  return candidates.flatMap(([applies, code, message]) => (applies ? [{ code, message }] : []))
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
