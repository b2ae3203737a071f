import type { listCheckpoints } from '../../engine/train/checkpoint.ts'
import type {
  FineTuningCheckpoint,
  FineTuningEvent,
  FineTuningJob,
} from '../../routes/schemas/fine-tuning.ts'
import { isPaused, type JobRecord } from '../fine-tuning/job-folder.ts'
import { jobIdOf } from '../fine-tuning/job-ids.ts'
import type { Job, JobEventRow } from '../jobs/types.ts'
import { fineTunedModel, ORGANIZATION } from '../models/fine-tuned-names.ts'
import { taskOf } from '../tasks/job-tasks.ts'
import { jobFieldsOf, unixTime } from './jobs.ts'

/** A training run together with what its fine-tuning job was asked for. */
export interface FineTuningRun {
  job: Job
  record: JobRecord
  folder: string
}

/** A job's status in OpenAI's words, `paused` for a cancelled run that is to go on later. */
export function statusOf({ status }: Job, folder: string): FineTuningJob['status'] {
  if ((status === 'cancelled' || status === 'cancelling') && isPaused(folder)) return 'paused'
  return status === 'cancelling' ? 'running' : status
}

/** The job as OpenAI's API shows it. */
export function toWire({ job, record, folder }: FineTuningRun): FineTuningJob {
  const { model, config } = taskOf(job, 'train')
  const { request, method, hyperparameters } = record
  const { created_at, finished_at, error } = jobFieldsOf(job)
  const status = statusOf(job, folder)
  const metrics = job.result?.metrics as Record<string, number> | undefined
  const remaining = job.progress?.remaining_seconds
  return {
    id: jobIdOf(job.id),
    object: 'fine_tuning.job',
    created_at,
    finished_at: status === 'paused' ? null : finished_at,
    estimated_finish:
      status === 'running' && typeof remaining === 'number'
        ? unixTime(new Date()) + Math.round(remaining)
        : null,
    error,
    model: model.id,
    fine_tuned_model: status === 'succeeded' ? fineTunedModel(model.id, request.suffix, job.id) : null,
    organization_id: ORGANIZATION,
    status,
    training_file: request.training_file,
    validation_file: request.validation_file ?? null,
    result_files: [],
    trained_tokens: metrics?.num_input_tokens_seen ?? null,
    seed: config.seed,
    hyperparameters: {
      n_epochs: hyperparameters.n_epochs,
      batch_size: hyperparameters.batch_size,
      learning_rate_multiplier: hyperparameters.learning_rate_multiplier,
    },
    method: { type: method, [method]: { hyperparameters } },
    metadata: request.metadata ?? null,
    integrations: [],
  }
}

const LEVELS: Partial<Record<JobEventRow['type'], FineTuningEvent['level']>> = {
  warning: 'warn',
  failed: 'error',
}

/** What its training run reported, as an event of the job. */
export function eventToWire({ jobId, seq, type, message, data, createdAt }: JobEventRow): FineTuningEvent {
  const isMetrics = type === 'progress' || type === 'evaluation'
  return {
    id: `ftevent-${jobId.replace(/^run-/, '')}-${seq}`,
    object: 'fine_tuning.job.event',
    created_at: unixTime(createdAt),
    level: LEVELS[type] ?? 'info',
    message,
    type: isMetrics ? 'metrics' : 'message',
    data: isMetrics ? { ...data, train_loss: data.loss, valid_loss: data.eval_loss } : data,
  }
}

/** A checkpoint of its training run. */
export function checkpointToWire(
  job: Job,
  { request }: JobRecord,
  { step, loss, evalLoss, createdAt }: ReturnType<typeof listCheckpoints>[number],
): FineTuningCheckpoint {
  const { model } = taskOf(job, 'train')
  return {
    id: `ftckpt-${job.id.replace(/^run-/, '')}-${step}`,
    object: 'fine_tuning.job.checkpoint',
    created_at: unixTime(createdAt),
    fine_tuning_job_id: jobIdOf(job.id),
    fine_tuned_model_checkpoint: fineTunedModel(model.id, request.suffix, job.id, step),
    step_number: step,
    metrics: {
      step,
      ...(loss !== null && { train_loss: loss }),
      ...(evalLoss !== null && { valid_loss: evalLoss }),
    },
  }
}
