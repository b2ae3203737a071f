import { existsSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import { parseTrainConfig, type TrainConfig } from '../../engine/train/config.ts'
import { type OutputPlan, planOutput } from '../../engine/train/output-dir.ts'
import { baseEntry, type ModelEntry, type ModelRegistry } from '../models/registry.ts'
import { sourceOf } from '../services/artifacts.ts'
import type { Settings } from '../settings.ts'
import { trackersOf } from '../tracking/index.ts'
import { placeOutput } from './output-dir.ts'
import type { TrainTask } from './task.ts'

/** A request with everything decided, before anything is read or written. */
export interface PlannedRun {
  task: TrainTask
  /** Absolute. */
  outputDir: string
  output: OutputPlan
}

/**
 * Checks a training configuration and finds its model, its dataset directory and its output folder.
 *
 * @param trusted the operator's own terminal, which may name folders where a client may only name ids
 * @throws EngineError naming the field
 */
export async function planRun(
  { models, settings }: { models: ModelRegistry; settings: Settings },
  body: Record<string, unknown>,
  trusted: boolean,
): Promise<PlannedRun> {
  const config = parseTrainConfig(body)
  trackersOf(config, settings) // refuses what is not set up
  const model = await startModel(models, config, trusted)
  const datasetDir = datasetDirOf(config, settings.directories.datasets, trusted)
  const { saves } = settings.directories
  const outputDir = placeOutput({ config, modelId: model.id, saves, trusted })
  const output = planOutput(outputDir, config)
  return { outputDir, output, task: { model: sourceOf(model), config, datasetDir } }
}

async function startModel(models: ModelRegistry, config: TrainConfig, trusted: boolean): Promise<ModelEntry> {
  const name = config.model_name_or_path
  const folder = resolve(name)
  const isFolder =
    trusted && (name.includes('/') || name.startsWith('.')) && existsSync(join(folder, 'config.json'))
  const model = isFolder
    ? baseEntry(basename(folder), { folder, createdAt: new Date() })
    : await models.resolve(name, 'model_name_or_path')
  if (!model.adapterFolder) return model
  throw new EngineError(
    'unsupported',
    'model_is_adapter',
    `${model.id} is an adapter over ${model.root}. A run starts from a whole model: merge it first, or resume its run.`,
    { param: 'model_name_or_path' },
  )
}

function datasetDirOf({ dataset_dir: named }: TrainConfig, configured: string, trusted: boolean): string {
  if (named === undefined) return configured
  if (trusted) return resolve(named)
  if (named === basename(configured) || resolve(named) === configured) return configured
  throw new EngineError(
    'invalid',
    'dataset_dir_fixed',
    `dataset_dir ${JSON.stringify(named)}: the server reads datasets from its own directory only. Leave the field out.`,
    { param: 'dataset_dir' },
  )
}
