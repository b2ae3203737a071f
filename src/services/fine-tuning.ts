import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import { listCheckpoints } from '../../engine/train/checkpoint.ts'
import type { FineTuningJob } from '../../routes/schemas/fine-tuning.ts'
import type { FineTuningService } from '../../routes/services.ts'
import {
  isPaused,
  markPaused,
  readRecord,
  rowsRoot,
  unmarkPaused,
  writeDatasets,
  writeRecord,
} from '../fine-tuning/job-folder.ts'
import { jobIdOf, runIdOf } from '../fine-tuning/job-ids.ts'
import { checkRequest, resolveHyperparameters, trainingBody } from '../fine-tuning/plan.ts'
import { isTerminal, type Job } from '../jobs/types.ts'
import type { ServiceContext } from './context.ts'
import { checkpointToWire, eventToWire, type FineTuningRun, statusOf, toWire } from './fine-tuning-wire.ts'
import { conflict } from './jobs.ts'
import { pageAfter } from './page-after.ts'
import type { Training } from './training.ts'

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

  function foundOf(job: Job | undefined): FineTuningRun | undefined {
    const folder = job?.request.dataset_dir
    const record = readRecord(folder, root)
    return job && record && { job, record, folder: folder as string }
  }

  async function find(id: string): Promise<FineTuningRun> {
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
