import type { TrainConfig } from '../config.ts'

/** pref_loss values that compare with no other model. */
const REFERENCE_FREE: ReadonlySet<string> = new Set<TrainConfig['pref_loss']>(['orpo', 'simpo'])

/** Whether a stage's loss compares with the model that the run began with, which is then kept in memory beside it. */
export function comparesWithStart({
  stage,
  pref_loss: loss = 'sigmoid',
}: Partial<Pick<TrainConfig, 'stage' | 'pref_loss'>>): boolean {
  return stage === 'kto' || (stage === 'dpo' && !REFERENCE_FREE.has(loss))
}
