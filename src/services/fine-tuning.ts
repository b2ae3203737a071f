import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import { listCheckpoints } from '../../engine/train/checkpoint.ts'
import type {
  FineTuningCheckpoint,
  FineTuningEvent,
  FineTuningJob,
} from '../../routes/schemas/fine-tuning.ts'
import type { FineTuningService } from '../../routes/services.ts'
import {
  isPaused,
  type JobRecord,
  markPaused,
  readRecord,
  rowsRoot,
  unmarkPaused,
  writeDatasets,
  writeRecord,
} from '../fine-tuning/job-folder.ts'
import { jobIdOf, runIdOf } from '../fine-tuning/job-ids.ts'
import { checkRequest, resolveHyperparameters, trainingBody } from '../fine-tuning/plan.ts'
import { isTerminal, type Job, type JobEventRow } from '../jobs/types.ts'
import { fineTunedModel, ORGANIZATION } from '../models/fine-tuned-names.ts'
import { taskOf } from '../tasks/job-tasks.ts'
import type { ServiceContext } from './context.ts'
import { conflict, jobFieldsOf, unixTime } from './jobs.ts'
import { pageAfter } from './page-after.ts'
import type { Training } from './training.ts'

/** A training run together with what its fine-tuning job was asked for. */
interface Found {
  job: Job
  record: JobRecord
  folder: string
}

const ALL_EVENTS = 1_000_000

/** Fields of a training run, and what this API calls them. */
const OWN_NAMES: ReadonlyMap<string, string> = new Map([
  ['model_name_or_path', 'model'],
  ['dataset', 'training_file'],
  ['eval_dataset', 'validation_file'],
])

function named({ kind, code, message, cause }: EngineError, param: string): EngineError {
  return new EngineError(kind, code, message, { param, cause })
}

/** A field of the run that the request does not have itself was made of one that it has. */
function inOwnWords(error: unknown, request: object): unknown {
  if (!(error instanceof EngineError) || error.param === undefined) return error
  const param = Object.hasOwn(request, error.param) ? undefined : OWN_NAMES.get(error.param)
  return param === undefined ? error : named(error, param)
}

function naming(param: string): (error: unknown) => never {
  return (error) => {
    throw error instanceof EngineError ? named(error, param) : error
  }
}

/** OpenAI's fine-tuning jobs: training runs on uploaded files, under OpenAI's names. */
export function fineTuningService(context: ServiceContext, training: Training): FineTuningService {
  const { queue, files, settings } = context
  const root = rowsRoot(settings.directories.saves)

  function foundOf(job: Job | undefined): Found | undefined {
    const folder = job?.request.dataset_dir
    const record = readRecord(folder, root)
    return job && record && { job, record, folder: folder as string }
  }

  async function find(id: string): Promise<Found> {
    const runId = runIdOf(id)
    const found = foundOf(runId === undefined ? undefined : await queue.get(runId))
    if (found) return found
    const message = `There is no fine-tuning job ${JSON.stringify(id.slice(0, 60))}.`
    throw new EngineError('not_found', 'fine_tuning_job_not_found', message, { param: 'id' })
  }

  async function stop(id: string, paused: boolean): Promise<FineTuningJob> {
    const { job, folder } = await find(id)
    if (!paused && isPaused(folder) && job.status === 'cancelled') {
      unmarkPaused(folder)
      return toWire(await find(id))
    }
    if (isTerminal(job.status)) {
      throw conflict('job_finished', `${id} is ${statusOf(job, folder)}; there is nothing to stop.`)
    }
    if (paused) await markPaused(folder)
    else unmarkPaused(folder)
    await training.cancel(job.id)
    return toWire(await find(id))
  }

  return {
    async create(request) {
      const folder = join(root, randomBytes(8).toString('hex'))
      const { training_file: train, validation_file: validation } = request
      try {
        const paths = {
          train: await files.pathOf(train).catch(naming('training_file')),
          validation:
            validation == null ? undefined : await files.pathOf(validation).catch(naming('validation_file')),
        }
        const { method, rows } = await writeDatasets(folder, paths)
        checkRequest(request, method)
        const hyperparameters = resolveHyperparameters(request, method, rows)
        await writeRecord(folder, { request, method, hyperparameters })
        const body = trainingBody(request, { method, hyperparameters }, folder)
        const run = await training.create(body, { trusted: true })
        return toWire(await find(jobIdOf(run.id)))
      } catch (error) {
        await rm(folder, { recursive: true, force: true })
        throw inOwnWords(error, request)
      }
    },
    async list({ after, limit, metadata }) {
      const jobs = (await queue.list({ kind: 'train' })).flatMap((job) => foundOf(job) ?? [])
      const wanted = jobs.filter(({ record }) => {
        const own = record.request.metadata ?? {}
        return Object.entries(metadata).every(([key, value]) => own[key] === value)
      })
      return pageAfter(wanted.map(toWire), after, limit)
    },
    async get(id) {
      return toWire(await find(id))
    },
    cancel: (id) => stop(id, false),
    pause: (id) => stop(id, true),
    async resume(id) {
      const { job, folder } = await find(id)
      if (job.status !== 'cancelled' && job.status !== 'failed') {
        throw conflict('job_not_paused', `${id} is ${statusOf(job, folder)}; only paused jobs are resumed.`)
      }
      unmarkPaused(folder)
      await training.resume(job.id)
      return toWire(await find(id))
    },
    async events(id, { after, limit }) {
      const { job } = await find(id)
      const rows = await queue.eventsAfter(job.id, 0, ALL_EVENTS)
      return pageAfter(rows.toReversed().map(eventToWire), after, limit)
    },
    async checkpoints(id, { after, limit }) {
      const { job, record } = await find(id)
      const found = listCheckpoints(job.outputDir).toReversed()
      return pageAfter(
        found.map((info) => checkpointToWire(job, record, info)),
        after,
        limit,
      )
    },
  }
}

function statusOf({ status }: Job, folder: string): FineTuningJob['status'] {
  if ((status === 'cancelled' || status === 'cancelling') && isPaused(folder)) return 'paused'
  return status === 'cancelling' ? 'running' : status
}

function toWire({ job, record, folder }: Found): FineTuningJob {
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

function eventToWire({ jobId, seq, type, message, data, createdAt }: JobEventRow): FineTuningEvent {
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

function checkpointToWire(
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
