import { meanScores, scoreText } from '../../engine/metrics/text-metrics.ts'
import type { EvaluationRequest } from '../../routes/schemas/evaluations.ts'
import type { EngineHosts } from '../engine-host/client.ts'
import type { Question } from './questions.ts'
import type { EvaluatedModel } from './task.ts'

/** A line of generated_predictions.jsonl, as LLaMA-Factory writes it. */
export interface Prediction {
  prompt: string
  predict: string
  label: string
}

/** Lets a model answer one question. */
export async function predict(
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

/** predict_bleu-4, predict_rouge-1, predict_rouge-2 and predict_rouge-l, in percent. */
export function predictionMetrics(rows: readonly Prediction[]): Record<string, number> {
  return meanScores(rows.map(({ predict: text, label }) => scoreText(text, label)))
}
