import type { TrainConfig } from '../../engine/train/config.ts'
import type { SourceModel } from '../services/artifacts.ts'

/** What tasks/train.ts gets: everything that the request left open is decided. */
export interface TrainTask {
  /** The whole model that the run starts from. */
  model: SourceModel
  config: TrainConfig
  /** The folder with dataset_info.json. */
  datasetDir: string
}
