import { freemem } from 'node:os'
import { EngineError } from '../../engine/errors.ts'
import { openModel } from '../../engine/models/index.ts'
import { IGNORE_INDEX } from '../../engine/text/conversation.ts'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'
import { toCommand, toYaml } from '../../engine/train/config.ts'
import { planSteps } from '../../engine/train/plan.ts'
import type { TrainingPreview } from '../../routes/services.ts'
import { DatasetRegistry } from '../datasets/registry.ts'
import { readModelFacts } from '../models/model-folder.ts'
import { prepareData } from './prepare-data.ts'
import type { TrainTask } from './task.ts'

/** What a run would do: everything up to the first step, without it. */
export async function previewRun({ model, config, datasetDir }: TrainTask): Promise<TrainingPreview> {
  const tokenizer = loadTokenizer(model.baseFolder)
  openModel(model.baseFolder).weights.close()
  const datasets = new DatasetRegistry({ directories: [datasetDir] })
  const data = await prepareData({ config, tokenizer, datasets })
  const plan = planSteps(config, data.examples.length)
  const facts = readModelFacts(model.baseFolder)
  const required = facts.weightBytes
  const available = process.constrainedMemory?.()
    ? Math.min(freemem(), process.constrainedMemory())
    : freemem()
  return {
    object: 'training.preview',
    model: model.id,
    config: { ...config },
    command: toCommand(config),
    yaml: toYaml(config),
    train_examples: data.examples.length,
    eval_examples: data.evalExamples.length,
    truncated_examples: data.truncated,
    tokens_per_epoch: sum(data.examples, ({ inputIds }) => inputIds.length),
    trained_tokens_per_epoch: sum(
      data.examples,
      ({ labels }) => labels.filter((id) => id !== IGNORE_INDEX).length,
    ),
    steps_per_epoch: plan.stepsPerEpoch,
    total_steps: plan.totalSteps,
    total_parameters: facts.parameters,
    trainable_parameters: 0,
    memory: { required_bytes: required, available_bytes: available, fits: required <= available },
    warnings: data.warnings,
  }
}

/** @throws EngineError `too_large` with both numbers when the run would not fit in memory. */
export function checkFits({ memory }: TrainingPreview): void {
  if (memory.fits) return
  const [required, available] = [memory.required_bytes, memory.available_bytes].map(gigabytes)
  throw new EngineError(
    'too_large',
    'insufficient_memory',
    `This run needs about ${required} of memory, and ${available} are available. Lower ` +
      'per_device_train_batch_size or cutoff_len (gradient_accumulation_steps keeps the effective batch).',
    { param: 'per_device_train_batch_size' },
  )
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(2)} GB`
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0)
}
