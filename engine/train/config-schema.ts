import { z } from 'zod'
import { STRETCHES } from '../models/stretch-rope.ts'
import { methodFields, optimizerFields } from './config-methods.ts'

const count = z.number().int()
const name = z.string().min(1)
const names = z.array(name).min(1)
/** What parseDevice (engine/onnx/device.ts) reads. */
const DEVICE = /^(auto|cpu|webgpu|cuda(:\d{1,3})?)$/

/**
 * Every field of a training run, with LLaMA-Factory's name and default. This is the form after coercion: text as YAML and
 * the command line have it becomes numbers, booleans and lists in config.ts, which also fills in what depends on others.
 */
export const trainConfigSchema = z.object({
  model_name_or_path: name.describe('Id or folder of the base model.'),
  stage: z
    .enum(['sft', 'pt', 'rm', 'dpo', 'kto'])
    .default('sft')
    .describe(
      'sft learns answers, pt raw text, dpo and rm preferences between answers, kto verdicts on answers.',
    ),
  finetuning_type: z
    .enum(['lora', 'freeze', 'full'])
    .default('lora')
    .describe('lora trains an adapter, freeze some layers, full all weights.'),
  device: z
    .string()
    .regex(DEVICE, 'must be auto, cpu, webgpu, cuda or, for one of several GPUs, cuda:N')
    .optional()
    .describe(
      'What the run computes on: auto, cpu, webgpu, cuda or cuda:N; the configured one when left out.',
    ),
  use_cpu: z.boolean().optional().describe("transformers' name for device cpu."),
  do_train: z.literal(true).default(true).describe('Accepted for compatibility: a run always trains.'),

  dataset: names.describe('Names in dataset_info.json, joined one after another.'),
  eval_dataset: names.optional().describe('Names of sets to evaluate on; excludes val_size.'),
  dataset_dir: name.optional().describe('Folder with dataset_info.json; the configured one when left out.'),
  template: name.optional().describe("Name of a chat template; the model's own when left out."),
  rope_scaling: z
    .enum(STRETCHES)
    .optional()
    .describe(
      "Stretch the model's rope to cutoff_len where that is longer than its context; the run keeps a base of its own.",
    ),
  enable_thinking: z
    .boolean()
    .optional()
    .describe('Templates of reasoning models: learn empty thoughts (true, the default) or answer at once.'),
  preserve_thinking: z
    .boolean()
    .optional()
    .describe('Keep the thoughts of earlier answers where only the last is learned, and in chat.'),
  tool_format: name
    .optional()
    .describe("How a named template writes tools; the template's own when left out."),
  default_system: z
    .string()
    .max(100_000)
    .optional()
    .describe('The system text of conversations that have none.'),
  cutoff_len: count
    .min(2)
    .max(1_048_576)
    .default(2048)
    .describe('Most tokens of an example; the rest is cut.'),
  max_samples: count.min(1).optional().describe('Most examples taken from each set.'),
  train_on_prompt: z.boolean().default(false).describe('Learn the prompts too.'),
  mask_history: z.boolean().default(false).describe('Learn only the last answer of a conversation.'),
  packing: z.boolean().optional().describe('Join examples up to cutoff_len tokens; on for stage pt.'),
  neat_packing: z
    .boolean()
    .default(false)
    .describe('Packing in which examples do not see each other; switches packing on.'),
  group_by_length: z
    .boolean()
    .default(false)
    .describe('Batches of examples of about the same length, so that less is padded.'),
  val_size: z
    .number()
    .min(0)
    .refine((value) => value < 1 || Number.isInteger(value), 'must be a fraction below 1 or a whole number')
    .default(0)
    .describe('Examples held out for evaluation: a fraction below 1, or a number of examples.'),
  disable_shuffling: z.boolean().default(false).describe('Visit the examples in the order of the data.'),

  quantization_bit: z
    .number()
    .refine((bits) => bits === 4 || bits === 8, 'must be 4 or 8; fewer bits lose too much')
    .optional()
    .describe("Hold the base's linear layers at 4 or 8 bits; an adapter is trained over them (QLoRA)."),
  quantization_method: z
    .enum(['bnb', 'bitsandbytes'])
    .default('bnb')
    .describe("Quantization on the fly by bitsandbytes' rules; the engine's own code does it."),
  quantization_type: z
    .enum(['nf4', 'fp4', 'int4'])
    .default('nf4')
    .describe('What 4-bit codes stand for: normal quantiles, small floats, or evenly spaced numbers.'),
  gradient_checkpointing: z
    .boolean()
    .optional()
    .describe('Compute layers again instead of keeping their results; on where memory would not suffice.'),
  disable_gradient_checkpointing: z
    .boolean()
    .optional()
    .describe("LLaMA-Factory's name for the opposite of gradient_checkpointing."),

  ...methodFields,

  pref_loss: z
    .enum(['sigmoid', 'hinge', 'ipo', 'orpo', 'simpo'])
    .default('sigmoid')
    .describe('Stage dpo: the loss of a pair.'),
  pref_beta: z.number().gt(0).max(1000).default(0.1).describe('Stages dpo and kto: beta of the loss.'),
  pref_ftx: z
    .number()
    .min(0)
    .max(1000)
    .default(0)
    .describe('Stages dpo and kto: how much the loss of the chosen answer itself is added.'),
  dpo_label_smoothing: z
    .number()
    .min(0)
    .lt(0.5)
    .default(0)
    .describe('Stage dpo: the probability that a pair is the wrong way round; for pref_loss sigmoid.'),
  simpo_gamma: z.number().min(0).max(1000).default(0.5).describe('Stage dpo: the margin of pref_loss simpo.'),
  kto_chosen_weight: z
    .number()
    .min(0)
    .max(1000)
    .default(1)
    .describe('Stage kto: weight of desirable answers.'),
  kto_rejected_weight: z
    .number()
    .min(0)
    .max(1000)
    .default(1)
    .describe('Stage kto: weight of undesirable answers.'),

  num_train_epochs: z.number().gt(0).max(1_000_000).default(3).describe('Passes over the data.'),
  max_steps: count.min(-1).max(1e9).default(-1).describe('Optimizer steps; above 0 it overrides the epochs.'),
  per_device_train_batch_size: count.min(1).max(65_536).default(8).describe('Examples in a batch.'),
  per_device_eval_batch_size: count
    .min(1)
    .max(65_536)
    .default(8)
    .describe('Examples in an evaluation batch.'),
  gradient_accumulation_steps: count.min(1).max(65_536).default(1).describe('Batches in an optimizer step.'),
  learning_rate: z.number().gt(0).max(10).default(5e-5).describe('Peak learning rate.'),
  ...optimizerFields,
  warmup_steps: z
    .number()
    .min(0)
    .max(1e9)
    .refine((value) => value < 1 || Number.isInteger(value), 'must be a fraction below 1 or a whole number')
    .default(0)
    .describe(
      'Steps over which the learning rate rises; below 1 a fraction of all steps. Wins over warmup_ratio.',
    ),
  warmup_ratio: z.number().min(0).max(1).default(0).describe('Fraction of all steps for the warm-up.'),
  weight_decay: z.number().min(0).max(10).default(0).describe('Decoupled weight decay.'),
  adam_beta1: z.number().min(0).lt(1).default(0.9).describe("Decay of AdamW's first moment."),
  adam_beta2: z.number().min(0).lt(1).default(0.999).describe("Decay of AdamW's second moment."),
  adam_epsilon: z.number().gt(0).max(1).default(1e-8).describe("Added to AdamW's denominator."),
  max_grad_norm: z
    .number()
    .min(0)
    .max(1e9)
    .default(1)
    .describe('Clip the gradient to this norm; 0 switches it off.'),
  seed: count.min(0).max(0xffffffff).default(42).describe('Seed of weights, order and dropout.'),
  bf16: z
    .boolean()
    .default(false)
    .describe(
      'Multiply frozen weights that are stored as bfloat16 in bfloat16, on GPUs with CUDA; sums, residuals, the adapter and all else stay float32. Elsewhere all is float32.',
    ),
  pure_bf16: z
    .boolean()
    .default(false)
    .describe('Taken as bf16: adapter and optimizer stay float32, which is at least as exact.'),
  fp16: z
    .boolean()
    .default(false)
    .describe(
      "Keep the layers' results as float16 for the backward pass, in half of the memory; arithmetic stays float32.",
    ),

  logging_steps: count.min(1).max(1e9).default(500).describe('Steps between entries of the log.'),
  save_steps: count.min(1).max(1e9).default(500).describe('Steps between checkpoints.'),
  save_total_limit: count.min(1).max(1e6).optional().describe('Most checkpoints kept; the oldest go first.'),
  save_only_model: z
    .boolean()
    .default(false)
    .describe('Checkpoints without optimizer state: they cannot resume.'),
  do_eval: z.boolean().optional().describe('Evaluate at the end; on when there is something to evaluate on.'),
  eval_strategy: z
    .enum(['no', 'steps'])
    .optional()
    .describe("'steps' evaluates while training, every eval_steps."),
  eval_steps: count
    .min(1)
    .max(1e9)
    .optional()
    .describe('Steps between evaluations; logging_steps when left out.'),

  compute_accuracy: z
    .boolean()
    .default(false)
    .describe('Stages sft and pt: log how many trained tokens are the first choice of the model.'),
  predict_with_generate: z
    .boolean()
    .default(false)
    .describe('Let the trained model answer eval_dataset at the end; BLEU-4 and ROUGE of its answers.'),
  max_new_tokens: count.min(1).max(32_768).default(512).describe('Longest generated answer.'),
  do_sample: z.boolean().default(false).describe('Sample generated answers; else the likeliest tokens.'),
  temperature: z.number().min(0).max(2).default(0.95).describe('Of sampled answers.'),
  top_p: z.number().gt(0).max(1).default(0.7).describe('Of sampled answers.'),
  top_k: count.min(0).max(100_000).default(50).describe('Of sampled answers.'),
  eval_on_each_dataset: z
    .boolean()
    .default(false)
    .describe('Log the loss of each eval_dataset too, as eval_<name>_loss.'),
  load_best_model_at_end: z
    .boolean()
    .default(false)
    .describe('Save each best evaluation, keep its checkpoint, and end with its weights.'),
  metric_for_best_model: name
    .optional()
    .describe('What the best evaluation is chosen by; loss when left out.'),
  greater_is_better: z
    .boolean()
    .optional()
    .describe('Whether that metric should grow; when left out, only where its name does not end with loss.'),
  early_stopping_steps: count
    .min(1)
    .max(1e6)
    .optional()
    .describe('Evaluations in a row without a better metric_for_best_model after which the run stops.'),
  stop_when_flat: z
    .boolean()
    .default(false)
    .describe('Stop when the smoothed training loss has flattened, instead of only warning.'),

  output_dir: name.optional().describe('Folder of the run; a new one under saves/ when left out.'),
  overwrite_output_dir: z.boolean().default(false).describe("Remove an earlier run's files from output_dir."),
  resume_from_checkpoint: z
    .union([z.boolean(), name])
    .optional()
    .describe('A checkpoint folder, or true for the last one in output_dir.'),
  plot_loss: z.boolean().default(true).describe('Draw training_loss.png.'),
  report_to: z
    .array(z.enum(['none', 'all', 'tensorboard', 'mlflow']))
    .min(1)
    .default(['none'])
    .describe("Trackers that get the curves; 'all' stands for those that are set up."),
})

export type FieldName = keyof typeof trainConfigSchema.shape

type Parsed = z.output<typeof trainConfigSchema>
type Filled = 'lora_alpha' | 'packing' | 'do_eval' | 'eval_strategy'

/** A checked configuration with every default filled in. A field that may stay open is undefined. */
export type TrainConfig = Omit<Parsed, Filled> & { [K in Filled]-?: NonNullable<Parsed[K]> }
