import { createReadStream, existsSync, statSync } from 'node:fs'
import { access } from 'node:fs/promises'
import { join } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import type { Evaluation, EvaluationRequest, EvaluationResult } from '../../routes/schemas/evaluations.ts'
import type { EvaluationService } from '../../routes/services.ts'
import { loadDataset } from '../datasets/load.ts'
import { servedBytes } from '../device/kv-budget.ts'
import { parseTask } from '../evaluation/choices.ts'
import { readChoiceTask } from '../evaluation/multiple-choice.ts'
import { type EvaluatedModel, type EvaluationTask, modelFolderName } from '../evaluation/task.ts'
import type { Job } from '../jobs/types.ts'
import { readModelFacts } from '../models/model-folder.ts'
import { removeFolder } from '../models/remove.ts'
import { servedDevice } from '../places.ts'
import { taskOf } from '../tasks/job-tasks.ts'
import { submitArtifact, taskProgressOf } from './artifacts.ts'
import type { ServiceContext } from './context.ts'
import { checkAtRest, conflict, findJob, jobFieldsOf, jobService } from './jobs.ts'
import type { SubmitOptions } from './submit.ts'

export interface Evaluations extends EvaluationService {
  create(request: EvaluationRequest, options?: SubmitOptions): Promise<Evaluation>
}

/** Evaluates models on datasets and multiple-choice tasks. */
export function evaluationService(context: ServiceContext): Evaluations {
  const { queue, settings } = context
  const { saves, datasets: datasetDir } = settings.directories
  return {
    ...jobService(context, 'evaluation', toWire),
    async create(request, { owner } = {}) {
      const models = await resolveModels(context, request)
      await checkInput(context, request)
      const engine = { threads: settings.chat.threads, maxPositions: settings.limits.contextTokens }
      const device = servedDevice(settings)
      await context.devices.choose(device)
      const expectedBytes = Math.max(
        ...models.map(({ baseFolder }) => servedBytes(readModelFacts(baseFolder).parameters, 'float32')),
      )
      const resolved: EvaluationTask = { models, request, datasetDir, device, expectedBytes, engine }
      return toWire(await submitArtifact(context, 'evaluation', { request, resolved, owner }))
    },
    async resume(id) {
      const job = await findJob(queue, 'evaluation', id)
      const resumed = await queue.resume(id)
      if (resumed) return toWire(resumed)
      throw conflict(
        'evaluation_not_resumable',
        `${id} is ${job.status}; only failed and cancelled ones are resumed.`,
      )
    },
    async delete(id) {
      const job = await findJob(queue, 'evaluation', id)
      checkAtRest(job)
      await queue.delete(id)
      await removeFolder(job.outputDir, saves)
    },
    async predictions(id, model) {
      const job = await findJob(queue, 'evaluation', id)
      const { models } = taskOf(job, 'evaluation')
      const found = models.find((entry) => entry.id === (model ?? models[0]!.id))
      const file = join(job.outputDir, modelFolderName(found?.id ?? ''), 'generated_predictions.jsonl')
      if (!found || !existsSync(file)) {
        const which = `${id} has no predictions of ${model ?? models[0]!.id}`
        throw new EngineError(
          'not_found',
          'no_predictions',
          `${which}; it evaluates ${models.map((m) => m.id).join(', ')}.`,
          {
            param: 'model',
          },
        )
      }
      return {
        size: statSync(file).size,
        async read(start, end) {
          await access(file)
          return createReadStream(file, { start, end })
        },
      }
    },
  }
}

async function resolveModels(
  { models }: ServiceContext,
  { model }: EvaluationRequest,
): Promise<EvaluatedModel[]> {
  const ids = [...new Set(typeof model === 'string' ? [model] : model)]
  return Promise.all(
    ids.map(async (id) => {
      const { baseFolder, adapterFolder, template } = await models.resolve(id)
      return { id, baseFolder, adapterFolder, template }
    }),
  )
}

/** Reads what is to be read once, so that a wrong name or row is told before anything is queued. */
async function checkInput({ datasets, settings }: ServiceContext, request: EvaluationRequest): Promise<void> {
  const { dataset, task, stage, max_samples: maxSamples, seed } = request
  if ((dataset === undefined) === (task === undefined)) {
    const message = 'Give either a dataset or a multiple-choice task.'
    throw new EngineError('invalid', 'dataset_or_task', message, {
      param: dataset === undefined ? 'dataset' : 'task',
    })
  }
  if (dataset !== undefined) {
    await loadDataset(datasets, dataset, { stage, maxSamples, seed })
    return
  }
  const { name, split } = parseTask(task!)
  readChoiceTask(join(settings.directories.datasets, 'evaluation', name), split)
}

function toWire(job: Job): Evaluation {
  const { models, request } = taskOf(job, 'evaluation')
  return {
    id: job.id,
    object: 'evaluation',
    models: models.map(({ id }) => id),
    dataset: request.dataset ?? null,
    task: request.task ?? null,
    progress: taskProgressOf(job),
    results: (job.result?.results as EvaluationResult[] | undefined) ?? [],
    ...jobFieldsOf(job),
  }
}
