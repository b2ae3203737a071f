import { openModel } from '../../engine/models/index.ts'
import { linearModules } from '../../engine/models/linear-modules.ts'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'
import { ignoredFields } from '../../engine/train/config.ts'
import type { ModelSize } from '../../engine/train/estimate.ts'
import { previewTraining, type TrainingPreview } from '../../engine/train/preview.ts'
import { countAdapter } from '../../engine/train/trainable.ts'
import { DatasetRegistry } from '../datasets/registry.ts'
import { readModelFacts } from '../models/model-folder.ts'
import { plannedAdapter } from './adapter-config.ts'
import { type PreparedData, prepareData } from './prepare-data.ts'
import type { TrainTask } from './task.ts'

/** What a run would do: everything up to the first step, without it. `body` is the request as it came. */
export async function previewRun(
  { model, config, datasetDir }: TrainTask,
  body: Record<string, unknown>,
): Promise<TrainingPreview> {
  const size = measureModel(model.baseFolder, config)
  const tokenizer = loadTokenizer(model.baseFolder)
  const datasets = new DatasetRegistry({ directories: [datasetDir] })
  const data = await prepareData({ config, tokenizer, datasets })
  return preview(config, size, data, ignoredFields(body))
}

/** The preview of a run whose data is prepared already. */
export function previewPrepared({ model, config }: TrainTask, data: PreparedData): TrainingPreview {
  return preview(config, measureModel(model.baseFolder, config), data, [])
}

function preview(
  config: TrainTask['config'],
  model: ModelSize,
  data: PreparedData,
  ignored: readonly string[],
): TrainingPreview {
  const { examples, evalExamples, truncated } = data
  const found = previewTraining(config, { model, examples, evalExamples, truncated, ignored })
  return { ...found, warnings: [...data.warnings, ...found.warnings] }
}

/** Reads the config and the headers of a model's weights. @throws EngineError for a model that cannot be built. */
function measureModel(folder: string, config: TrainTask['config']): ModelSize {
  const model = openModel(folder)
  try {
    const { parameters, weightBytes } = readModelFacts(folder)
    const planned =
      config.finetuning_type === 'full'
        ? parameters
        : countAdapter(plannedAdapter(config), linearModules(model), model.weights.entries.values())
    // The value head is one weight for each hidden unit and a bias.
    const trainableParameters = planned + (config.stage === 'rm' ? model.config.hiddenSize + 1 : 0)
    return { ...model.config, parameters, weightBytes, trainableParameters }
  } finally {
    model.weights.close()
  }
}
