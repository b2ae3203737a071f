import { EngineError } from '../../engine/errors.ts'
import { mlpWidth } from '../../engine/nn/config.ts'
import type { LinearModule } from '../../engine/nn/linear-module.ts'
import { packedBytesOf, type WeightScheme } from '../../engine/packed/layout.ts'
import { type BaseModel, baseLinearModules, baseParameterCount, openBase } from '../../engine/quant/source.ts'
import { elementCount } from '../../engine/tensor.ts'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'
import { ignoredFields } from '../../engine/train/config.ts'
import type { ModelSize } from '../../engine/train/estimate.ts'
import { checkOptimizer } from '../../engine/train/optimizers/index.ts'
import { previewTraining, type TrainingPreview } from '../../engine/train/preview.ts'
import { countAdapter } from '../../engine/train/trainable.ts'
import { DatasetRegistry } from '../datasets/registry.ts'
import { readModelFacts } from '../models/model-folder.ts'
import { plannedAdapter } from './adapter-config.ts'
import { methodOf } from './build-step.ts'
import { checkStart, startWarnings } from './check-start.ts'
import type { RunCapacity } from './memory.ts'
import { weightScheme } from './packing.ts'
import { type PreparedData, prepareData } from './prepare-data.ts'
import type { TrainTask } from './task.ts'

/**
 * What a run would do: everything up to the first step, without it. `body` is the request as it came, `capacity` what
 * the run could get.
 */
export async function previewRun(
  task: TrainTask,
  body: Record<string, unknown>,
  capacity: RunCapacity,
): Promise<TrainingPreview> {
  const { model, config, datasetDir } = task
  const size = measureModel(task)
  const tokenizer = loadTokenizer(model.baseFolder)
  const datasets = new DatasetRegistry({ directories: [datasetDir] })
  const data = await prepareData({ config, tokenizer, datasets })
  return preview(task, size, data, { ignored: ignoredFields(body), ...capacity })
}

/** The preview of a run whose data is prepared already. */
export function previewPrepared(task: TrainTask, data: PreparedData, capacity: RunCapacity): TrainingPreview {
  return preview(task, measureModel(task), data, { ignored: [], ...capacity })
}

function preview(
  task: TrainTask,
  model: ModelSize,
  data: PreparedData,
  more: { ignored: readonly string[] } & RunCapacity,
): TrainingPreview {
  const { examples, evalExamples, truncated } = data
  const found = previewTraining(task.config, { model, examples, evalExamples, truncated, ...more })
  return { ...found, warnings: [...data.warnings, ...startWarnings(task), ...found.warnings] }
}

/** Reads the config and the headers of a model's weights. @throws EngineError for a model that cannot be built. */
function measureModel(task: TrainTask): ModelSize {
  const { config } = task
  const folder = task.model.baseFolder
  const base = openBase(folder)
  try {
    checkShiftAttention(config, base)
    const scheme = weightScheme(config, base)
    const linears = baseLinearModules(base)
    const { weightBytes, dtype } = readModelFacts(folder)
    const isBfloat16 = dtype === 'BF16'
    const parameters = baseParameterCount(base)
    checkStart(task, base, linears)
    const planned = countPlanned(task, base, linears)
    // The value head is one weight for each hidden unit and a bias.
    const trainableParameters = planned + (config.stage === 'rm' ? base.config.hiddenSize + 1 : 0)
    const packed = scheme ? { packedBytes: packedTotal(base, scheme, linears) } : {}
    const intermediateSize = mlpWidth(base.config)
    return {
      ...base.config,
      intermediateSize,
      parameters,
      weightBytes,
      isBfloat16,
      trainableParameters,
      ...packed,
    }
  } finally {
    base.weights.close()
  }
}

/** Bytes of all tensors once the linear modules are packed. */
function packedTotal(
  { quantization, weights }: BaseModel,
  scheme: WeightScheme,
  linears: readonly LinearModule[],
) {
  const replaced = new Set(quantization ? [] : linears.map(({ path }) => `${path}.weight`))
  const kept = [...weights.entries.values()].filter(({ name }) => !replaced.has(name))
  const bytes = kept.reduce((sum, { byteLength }) => sum + byteLength, 0)
  return quantization ? bytes : bytes + packedBytesOf(scheme, linears)
}

function countPlanned(task: TrainTask, model: BaseModel, linears: readonly LinearModule[]): number {
  const tensors = [...model.weights.entries.values()]
  const method = methodOf(task, model)
  if (method.kind === 'lora') return countAdapter(plannedAdapter(task), linears, tensors)
  const trained = tensors.filter(({ name }) => method.trains?.(name) ?? true)
  checkOptimizer(task.config, trained)
  return trained.reduce((sum, { shape }) => sum + elementCount(shape), 0)
}

/** Shifted attention is defined, and compared with LLaMA-Factory's, for plain causal attention. */
function checkShiftAttention({ shift_attn: asked }: TrainTask['config'], { raw }: BaseModel): void {
  if (!asked || raw.model_type === 'llama') return
  const message = `shift_attn is for models of type llama; this one is ${raw.model_type}`
  throw new EngineError('unsupported', 'shift_attn_unsupported', message, { param: 'shift_attn' })
}
