import { existsSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { ADAPTER_CONFIG_FILE } from '../../engine/adapter/peft.ts'
import { EngineError } from '../../engine/errors.ts'
import { parseTrainConfig, type TrainConfig } from '../../engine/train/config.ts'
import { type OutputPlan, planOutput } from '../../engine/train/output-dir.ts'
import { baseEntry, type ModelEntry, type ModelRegistry } from '../models/registry.ts'
import { sourceOf } from '../models/source-model.ts'
import type { Settings } from '../settings.ts'
import { trackersOf } from '../tracking/index.ts'
import { placeOutput } from './output-dir.ts'
import type { TrainTask } from './task.ts'

/** A request with everything decided, before anything is read or written. */
export interface PlannedRun {
  task: TrainTask & { device: string }
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
  const adapters = await startAdapters(models, config, model, trusted)
  const device = config.device ?? settings.device
  return { outputDir, output, task: { model: sourceOf(model), config, adapters, device, datasetDir } }
}

/** The folders of adapter_name_or_path. */
async function startAdapters(
  models: ModelRegistry,
  config: TrainConfig,
  base: ModelEntry,
  trusted: boolean,
): Promise<string[]> {
  const folders: string[] = []
  for (const name of config.adapter_name_or_path ?? []) {
    const folder = resolve(name)
    if (trusted && existsSync(join(folder, ADAPTER_CONFIG_FILE))) {
      folders.push(folder)
      continue
    }
    const entry = await models.resolve(name, 'adapter_name_or_path')
    if (entry.adapterFolder && entry.baseFolder === base.baseFolder) {
      folders.push(entry.adapterFolder)
      continue
    }
    const what = entry.adapterFolder
      ? `lies over another base than ${base.id}`
      : 'is a whole model, no adapter'
    const message = `${entry.id} ${what}. adapter_name_or_path takes runs and checkpoints that were trained over model_name_or_path.`
    throw new EngineError('invalid', 'adapter_mismatch', message, { param: 'adapter_name_or_path' })
  }
  return folders
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
    `${model.id} is an adapter over ${model.root}. A run starts from a whole model: name that and put ${model.id} into adapter_name_or_path, merge it first, or resume its run.`,
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
