import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TrainConfig } from '../../engine/train/config.ts'
import { evaluationRequest } from '../../routes/schemas/evaluations.ts'
import { loadDataset } from '../datasets/load.ts'
import type { DatasetRegistry } from '../datasets/registry.ts'
import { ON_CPU, type Placement } from '../device/devices.ts'
import { EngineHosts } from '../engine-host/client.ts'
import { answerQuestions } from './predictions.ts'
import { encodeData } from './questions.ts'
import type { EvaluatedModel } from './task.ts'

const PREDICTIONS_FILE = 'generated_predictions.jsonl'
const RESULTS_FILE = 'predict_results.json'

/** Removes the answers of other weights or another run, which would be taken for those of this one. */
export function forgetPredictions(outputDir: string): void {
  for (const name of [PREDICTIONS_FILE, RESULTS_FILE]) rmSync(join(outputDir, name), { force: true })
}

/**
 * Lets a trained model answer its evaluation set (`predict_with_generate`): generated_predictions.jsonl row by row, and
 * predict_… in predict_results.json and all_results.json, as LLaMA-Factory has them. A run that was killed meanwhile goes
 * on after its last row.
 */
export async function predictAfterTraining(
  model: EvaluatedModel,
  config: TrainConfig,
  options: {
    outputDir: string
    datasets: DatasetRegistry
    /** Where the run computes; its answers are made there too. */
    placement: Placement | undefined
    signal: AbortSignal
    onRow(done: number, total: number): void
  },
): Promise<Record<string, number>> {
  const { outputDir, datasets, placement = ON_CPU, signal, onRow } = options
  const { seed, max_samples: maxSamples, cutoff_len: cutoffLength } = config
  const { max_new_tokens, do_sample, temperature, top_p, top_k } = config
  const generation = { max_new_tokens, do_sample, temperature, top_p, top_k }
  const request = evaluationRequest.parse({
    model: model.id,
    cutoff_len: cutoffLength,
    seed,
    ...generation,
  })
  const { conversations } = await loadDataset(datasets, config.eval_dataset!, {
    stage: 'sft',
    maxSamples,
    seed,
  })
  const { questions } = await encodeData(model, conversations, request, signal)
  const hosts = new EngineHosts({ maxLoaded: 1, placeOf: async () => placement })
  try {
    const file = join(outputDir, PREDICTIONS_FILE)
    const report = { signal, onRow: (done: number) => onRow(done, questions.length) }
    const metrics = await answerQuestions(hosts, model, { questions, request, file }, report)
    writeFileSync(join(outputDir, RESULTS_FILE), json(metrics))
    const all = join(outputDir, 'all_results.json')
    const known = existsSync(all) ? (JSON.parse(readFileSync(all, 'utf8')) as object) : {}
    writeFileSync(all, json({ ...known, ...metrics }))
    return metrics
  } finally {
    await hosts.close()
  }
}

const json = (value: unknown) => `${JSON.stringify(value, null, 4)}\n`
