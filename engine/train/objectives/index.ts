import type { TrainConfig } from '../config.ts'
import { feedback } from './feedback.ts'
import { languageModel } from './language-model.ts'
import type { Objective } from './objective.ts'
import { preference } from './preference.ts'
import { reward } from './reward.ts'

const OBJECTIVES: Readonly<Record<TrainConfig['stage'], (config: TrainConfig) => Objective>> = {
  pt: () => languageModel,
  sft: () => languageModel,
  rm: () => reward,
  dpo: preference,
  kto: feedback,
}

/** What a run's stage learns. */
export function objectiveOf(config: TrainConfig): Objective {
  return OBJECTIVES[config.stage](config)
}
