import type { TrainConfig } from '../../engine/train/config.ts'
import type { SourceModel } from '../models/source-model.ts'

/** What tasks/train.ts gets: everything that the request left open is decided. */
export interface TrainTask {
  /** The whole model that the run starts from. */
  model: SourceModel
  config: TrainConfig
  /** PEFT folders of adapter_name_or_path, in their order. */
  adapters?: readonly string[]
  /** What the run is to compute on, as a setting says it; the CPU when left out. */
  device?: string
  /** The memory that it was estimated to take. */
  expectedBytes?: number
  /** The folder with dataset_info.json. */
  datasetDir: string
}

/** The part of a task that decides what is trained. */
export type MethodTask = Pick<TrainTask, 'config' | 'adapters'> & { model: Pick<SourceModel, 'baseFolder'> }

/**
 * What becomes of the adapters that a run is given, as in LLaMA-Factory: all but the last are merged into the base, and
 * the last one goes on training; with create_new_adapter all are merged, and a new one begins.
 */
export function adapterRoles({ config, adapters = [] }: Pick<TrainTask, 'config' | 'adapters'>): {
  merged: readonly string[]
  resumed: string | undefined
} {
  if (config.create_new_adapter) return { merged: adapters, resumed: undefined }
  return { merged: adapters.slice(0, -1), resumed: adapters.at(-1) }
}
