import type { TrainConfig } from './config-schema.ts'

/** The best evaluation of a run so far; plain data, so that a checkpoint can hold it. */
export interface Best {
  step: number
  value: number
  /** Evaluations since then that were no better. */
  since: number
}

/** The log's name of what the best model is chosen by: metric_for_best_model with its eval_ before it. */
export function bestMetric({ metric_for_best_model: named = 'loss' }: TrainConfig): string {
  return named.startsWith('eval_') ? named : `eval_${named}`
}

/** Takes an evaluation into account, as transformers' early stopping does: only what is strictly better counts. */
export function updateBest(
  best: Best | undefined,
  evaluation: { step: number; value: number },
  config: TrainConfig,
): Best {
  const greater = config.greater_is_better ?? !bestMetric(config).endsWith('loss')
  const isBetter =
    best === undefined || (greater ? evaluation.value > best.value : evaluation.value < best.value)
  return isBetter ? { ...evaluation, since: 0 } : { ...best, since: best.since + 1 }
}

/** Whether a run keeps the checkpoint of its best evaluation, and begins to look for one. */
export function tracksBest(config: TrainConfig): boolean {
  return config.load_best_model_at_end || config.early_stopping_steps !== undefined
}

const REWARDS = ['rewards/chosen', 'rewards/rejected', 'rewards/margins', 'logps/chosen', 'logps/rejected']
const STAGE_METRICS: Readonly<Record<TrainConfig['stage'], readonly string[]>> = {
  pt: ['perplexity'],
  sft: [],
  rm: ['rewards/chosen', 'rewards/rejected', 'rewards/margins', 'rewards/accuracies'],
  dpo: [...REWARDS, 'rewards/accuracies'],
  kto: [...REWARDS, 'kl'],
}

/** The names that metric_for_best_model may have, without eval_. */
export function evaluationMetrics(
  config: Pick<TrainConfig, 'stage' | 'compute_accuracy' | 'eval_on_each_dataset' | 'eval_dataset'>,
): string[] {
  const accuracy = config.compute_accuracy ? ['accuracy'] : []
  const sets = config.eval_on_each_dataset ? (config.eval_dataset ?? []) : []
  return ['loss', ...accuracy, ...STAGE_METRICS[config.stage], ...sets.map((name) => `${name}_loss`)]
}
