import { mkdirSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { loadDataset } from '../datasets/load.ts'
import { DatasetRegistry } from '../datasets/registry.ts'
import { ON_CPU } from '../device/devices.ts'
import { EngineHosts } from '../engine-host/client.ts'
import { answerChoices } from '../evaluation/choices.ts'
import { type LikelihoodRow, likelihoodMetrics, likelihoodOf } from '../evaluation/likelihood.ts'
import { answerQuestions, CONCURRENCY } from '../evaluation/predictions.ts'
import { encodeData } from '../evaluation/questions.ts'
import { fillRows } from '../evaluation/row-file.ts'
import { comparisonTable } from '../evaluation/table.ts'
import { type EvaluationTask, type ModelEvaluation, modelFolderName } from '../evaluation/task.ts'
import type { Task } from '../jobs/protocol.ts'
import { taskOf } from './job-tasks.ts'
import { createStages } from './progress.ts'

/** Evaluates each model in turn. Every finished row is on disk at once, and a later start goes on after it. */
export const evaluateTask: Task = async ({ job, signal, report }) => {
  const task = taskOf(job, 'evaluation')
  const { models, request } = task
  const placeOf = async () => job.placement ?? ON_CPU
  const hosts = new EngineHosts({ ...task.engine, maxLoaded: 1, placeOf })
  const perModel = request.task !== undefined || request.predict_with_generate === false ? 1 : 2
  const stages = createStages(report, models.length * perModel)
  try {
    const evaluate = request.task === undefined ? await onDataset(task) : onTask(task)
    const results = []
    for (const model of models) {
      const folder = join(job.outputDir, modelFolderName(model.id))
      mkdirSync(folder, { recursive: true })
      const metrics = await evaluate({ model, folder, hosts, signal, stages })
      await writeJson(join(folder, 'all_results.json'), metrics)
      results.push({ model: model.id, metrics })
      report('evaluation', `${model.id}: ${describe(metrics)}`, { model: model.id, metrics })
    }
    await writeJson(join(job.outputDir, 'results.json'), results)
    await writeFile(join(job.outputDir, 'results.md'), comparisonTable(results))
    return { results }
  } finally {
    await hosts.close()
  }
}

type Evaluate = (evaluation: ModelEvaluation) => Promise<Record<string, number>>

async function onDataset({ request, datasetDir }: EvaluationTask): Promise<Evaluate> {
  const { stage, max_samples: maxSamples, seed, dataset } = request
  const registry = new DatasetRegistry({ directories: [datasetDir] })
  const { conversations } = await loadDataset(registry, dataset!, { stage, maxSamples, seed })
  return async ({ model, folder, hosts, signal, stages }) => {
    const data = await encodeData(model, conversations, request, signal)
    const fill = { concurrency: CONCURRENCY, signal }
    const likelihoods = await fillRows<(typeof data.examples)[number], LikelihoodRow>(
      join(folder, 'likelihoods.jsonl'),
      data.examples,
      (example) => likelihoodOf(hosts, model, example, signal),
      { ...fill, onRow: stages.next(`${model.id}: loss`, data.examples.length) },
    )
    const metrics = likelihoodMetrics(likelihoods)
    if (request.predict_with_generate === false) return metrics
    const file = join(folder, 'generated_predictions.jsonl')
    const report = { signal, onRow: stages.next(`${model.id}: answers`, data.questions.length) }
    const predicted = await answerQuestions(
      hosts,
      model,
      { questions: data.questions, request, file },
      report,
    )
    return data.questions.length === 0 ? metrics : { ...metrics, ...predicted }
  }
}

function onTask(task: EvaluationTask): Evaluate {
  const answer = answerChoices(task)
  return (evaluation) => answer(evaluation, CONCURRENCY)
}

function describe(metrics: Record<string, number>): string {
  const shown = [
    'eval_loss',
    'eval_perplexity',
    'eval_accuracy',
    'predict_bleu-4',
    'predict_rouge-l',
    'accuracy',
    'eval_too_long',
    'predict_too_long',
    'too_long',
  ]
  return shown
    .flatMap((name) => {
      const value = metrics[name]
      return value === undefined ? [] : [`${name} ${Number.isInteger(value) ? value : value.toFixed(4)}`]
    })
    .join(', ')
}

async function writeJson(file: string, value: unknown): Promise<void> {
  await writeFile(file, `${JSON.stringify(value, null, 2)}\n`)
}
