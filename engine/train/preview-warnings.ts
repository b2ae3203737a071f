import type { DeviceTraits } from '../onnx/device.ts'
import type { TrainConfig } from './config.ts'
import type { Plan } from './plan.ts'
import { warmupSteps } from './schedule.ts'

export interface PreviewWarning {
  code: string
  message: string
}

/** At most this many examples are a small set, which a model only takes over after many passes. */
const SMALL_SET = 200
const EPOCHS_FOR_SMALL_SET = 300
/** Above these, training usually diverges. */
const HIGH_LEARNING_RATE = { lora: 2e-3, freeze: 5e-4, full: 5e-4 }

/** What warnings depend on, besides the config. */
export interface WarningFacts {
  /** Tokens that the model was made for; undefined where that is not known. */
  context: number | undefined
  examples: number
  evalExamples: number
  /** Examples that cutoff_len cut. */
  truncated: number
  /** Tokens of the longest example. */
  longest: number
  /** Fields of the request that are accepted and change nothing. */
  ignored: readonly string[] | undefined
  device: DeviceTraits
  /** Whether layers are computed again for the backward pass. */
  checkpointing: boolean
  /** Whether frozen weights are multiplied as they are stored, in bfloat16. */
  bfloat16: boolean
}

/** What the user should know of a run before it starts; nothing of it keeps the run from starting. */
export function warningsOf(config: TrainConfig, plan: Plan, facts: WarningFacts): PreviewWarning[] {
  const { context = Number.POSITIVE_INFINITY, longest, examples, evalExamples } = facts
  const { truncated, ignored = [], device, checkpointing, bfloat16 } = facts
  const asksBfloat16 = config.bf16 || config.pure_bf16
  const total = plan.totalSteps
  const rate = config.learning_rate
  const candidates: [applies: boolean, code: string, message: string][] = [
    [
      // Preferences are not taken over by heart: a pass or two is usual, whatever the size.
      (config.stage === 'sft' || config.stage === 'pt') &&
        examples <= SMALL_SET &&
        total < EPOCHS_FOR_SMALL_SET * plan.stepsPerEpoch,
      'few_epochs',
      `${examples} samples, small set: use at least ${EPOCHS_FOR_SMALL_SET} epochs if the model is to take them ` +
        `over; this run makes ${Number((total / plan.stepsPerEpoch).toFixed(2))}.`,
    ],
    [
      truncated > 0,
      'truncated_examples',
      `${truncated} of ${examples} examples reach cutoff_len = ${config.cutoff_len} and are cut there.`,
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
      config.eval_strategy === 'steps' && evalExamples === 0,
      'nothing_to_evaluate',
      'No example is held out, so there is nothing to evaluate on.',
    ],
    [
      asksBfloat16 && !device.multipliesBfloat16,
      'computes_in_float32',
      'bf16 is accepted, but training computes in float32, which is at least as exact.',
    ],
    [
      asksBfloat16 && device.multipliesBfloat16 === true && !bfloat16,
      'bf16_without_effect',
      'bf16 changes nothing: only frozen weights that are stored as bfloat16 are multiplied in it, and this run has none.',
    ],
    [
      config.pure_bf16 && bfloat16,
      'adapter_in_float32',
      'pure_bf16 is taken as bf16: adapter, gradients and optimizer stay float32, which is at least as exact.',
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
