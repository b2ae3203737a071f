import type { TrainConfig } from '../config.ts'
import { feedback } from './feedback.ts'
import { languageModel, languageModelWithAccuracy } from './language-model.ts'
import type { Objective } from './objective.ts'
import { preference } from './preference.ts'
import { reward } from './reward.ts'

const OBJECTIVES: Readonly<Record<TrainConfig['stage'], (config: TrainConfig) => Objective>> = {
  pt: causal,
  sft: causal,
  rm: () => reward,
  dpo: preference,
  kto: feedback,
}

function causal({ compute_accuracy: measured }: TrainConfig): Objective {
  return measured ? languageModelWithAccuracy : languageModel
}

/** What a run's stage learns. */
export function objectiveOf(config: TrainConfig): Objective {
  return OBJECTIVES[config.stage](config)
}
