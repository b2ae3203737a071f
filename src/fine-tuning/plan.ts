import { EngineError } from '../../engine/errors.ts'
import type { FineTuningRequest } from '../../routes/schemas/fine-tuning.ts'
import type { JobRecord } from './job-folder.ts'
import type { FineTuningMethod } from './rows.ts'

/** Learning rates that a multiplier of 1 stands for: LLaMA-Factory's examples for LoRA. */
const LEARNING_RATE = { supervised: 1e-4, dpo: 5e-6 } as const
const AUTO_BATCH = 4
/** `auto` epochs give a small file about so many optimizer steps. */
const AUTO_STEPS = 300
const AUTO_BETA = 0.1
const SAVE_STEPS = 100

/** Fields that the request's own fields decide. */
const DECIDED = [
  'model_name_or_path',
  'dataset',
  'eval_dataset',
  'dataset_dir',
  'stage',
  'finetuning_type',
  'output_dir',
  'resume_from_checkpoint',
]

const OWN = new Set([
  'model',
  'training_file',
  'validation_file',
  'suffix',
  'seed',
  'metadata',
  'integrations',
  'method',
  'hyperparameters',
  'lora',
])

/** Refuses a file of another kind than the method asks for, and fields that contradict the request's own. */
export function checkRequest(request: FineTuningRequest, found: FineTuningMethod): void {
  const decided = DECIDED.find((field) => field in request)
  if (decided !== undefined) {
    const message = `${decided} follows from model, training_file and method; leave it out, or use /v1/training/runs.`
    throw new EngineError('invalid', 'field_not_allowed', message, { param: decided })
  }
  const wanted = request.method?.type ?? found
  if (wanted === found) return
  throw new EngineError(
    'invalid',
    'invalid_training_file',
    `method is ${wanted}, but the training file holds ${found} examples.`,
    { param: 'training_file' },
  )
}

/** Fills in what was left to `auto`. */
export function resolveHyperparameters(
  request: FineTuningRequest,
  found: FineTuningMethod,
  rows: number,
): JobRecord['hyperparameters'] {
  const { method } = request
  const ofMethod = method?.type === 'dpo' ? method.dpo?.hyperparameters : method?.supervised?.hyperparameters
  const asked: Record<string, number | 'auto' | undefined> = { ...request.hyperparameters, ...ofMethod }
  const number = (name: string, automatic: number) => {
    const value = asked[name]
    return typeof value === 'number' ? value : automatic
  }
  const batchSize = number('batch_size', Math.min(AUTO_BATCH, rows))
  const epochs = Math.ceil(AUTO_STEPS / Math.ceil(rows / batchSize))
  return {
    n_epochs: number('n_epochs', Math.min(50, Math.max(3, epochs))),
    batch_size: batchSize,
    learning_rate_multiplier: number('learning_rate_multiplier', 1),
    ...(found === 'dpo' && { beta: number('beta', AUTO_BETA) }),
  }
}

/** The training run that a job is. Fields in LLaMA-Factory's names go before what OpenAI's names give. */
export function trainingBody(
  request: FineTuningRequest,
  { method, hyperparameters }: Omit<JobRecord, 'request'>,
  datasetDir: string,
): Record<string, unknown> {
  const { lora, seed } = request
  const targets = lora?.target_modules
  const extra = Object.entries(request).filter(([field]) => !OWN.has(field))
  return {
    num_train_epochs: hyperparameters.n_epochs,
    per_device_train_batch_size: hyperparameters.batch_size,
    learning_rate: LEARNING_RATE[method] * hyperparameters.learning_rate_multiplier,
    lr_scheduler_type: 'cosine',
    logging_steps: 1,
    save_steps: SAVE_STEPS,
    ...(method === 'dpo' && { pref_beta: hyperparameters.beta }),
    ...(seed != null && { seed }),
    ...(lora?.r !== undefined && { lora_rank: lora.r }),
    ...(lora?.alpha !== undefined && { lora_alpha: lora.alpha }),
    ...(lora?.dropout !== undefined && { lora_dropout: lora.dropout }),
    ...(targets !== undefined && { lora_target: typeof targets === 'string' ? targets : targets.join(',') }),
    ...Object.fromEntries(extra),
    model_name_or_path: request.model,
    dataset: 'train',
    ...(request.validation_file != null && {
      eval_dataset: 'validation',
      eval_strategy: 'steps',
      eval_steps: SAVE_STEPS,
    }),
    dataset_dir: datasetDir,
    stage: method === 'dpo' ? 'dpo' : 'sft',
    finetuning_type: 'lora',
  }
}
