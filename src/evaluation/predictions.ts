import { meanScores, scoreText } from '../../engine/metrics/text-metrics.ts'
import type { EvaluationRequest } from '../../routes/schemas/evaluations.ts'
import type { EngineHosts } from '../engine-host/client.ts'
import type { Question } from './questions.ts'
import { fillRows } from './row-file.ts'
import type { EvaluatedModel } from './task.ts'
import { type TooLong, tooLongMetric, unlessTooLong } from './too-long.ts'

/** A line of generated_predictions.jsonl, as LLaMA-Factory writes it. */
export interface Prediction extends TooLong {
  prompt: string
  predict: string
  label: string
}

/** Lets a model answer one question. */
async function predict(
  hosts: EngineHosts,
  { baseFolder, adapterFolder }: EvaluatedModel,
  { prompt, promptTokens, label }: Question,
  settings: EvaluationRequest,
  signal: AbortSignal,
): Promise<Prediction> {
  const sampling = settings.do_sample
    ? { temperature: settings.temperature, topP: settings.top_p, topK: settings.top_k }
    : { temperature: 0 }
  let text = ''
  const request = {
    baseFolder,
    adapterFolder,
    prompt: [...promptTokens],
    maxTokens: settings.max_new_tokens,
    seed: settings.seed,
    ...sampling,
  }
  for await (const event of hosts.generate(request, signal)) if (event.type === 'text') text += event.text
  return { prompt, predict: text, label }
}

/** predict_bleu-4, predict_rouge-1, predict_rouge-2 and predict_rouge-l, in percent; no answer scores nothing. */
function predictionMetrics(rows: readonly Prediction[]): Record<string, number> {
  const scores = meanScores(rows.map(({ predict: text, label }) => scoreText(text, label)))
  return { ...scores, ...tooLongMetric('predict_too_long', rows) }
}

/** Rows in work at the same time; the engine's batches fill from these. */
export const CONCURRENCY = 8

/** Lets a model answer all questions, each answer on disk at once, and scores them. */
export async function answerQuestions(
  hosts: EngineHosts,
  model: EvaluatedModel,
  work: { questions: readonly Question[]; request: EvaluationRequest; file: string },
  options: { signal: AbortSignal; onRow(done: number): void },
): Promise<Record<string, number>> {
  const { questions, request, file } = work
  const answer = (question: Question) => {
    const { prompt, label } = question
    const answered = predict(hosts, model, question, request, options.signal)
    return unlessTooLong(answered, { prompt, predict: '', label, too_long: true })
  }
  const rows = await fillRows<Question, Prediction>(file, questions, answer, {
    concurrency: CONCURRENCY,
    ...options,
  })
  return predictionMetrics(rows)
}
