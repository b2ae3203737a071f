import { join } from 'node:path'
import { requireFit } from '../../engine/adapter/fit.ts'
import { ADAPTER_CONFIG_FILE, readAdapter } from '../../engine/adapter/peft.ts'
import { readPeftConfig } from '../../engine/adapter/peft-config.ts'
import { EngineError } from '../../engine/errors.ts'
import type { LinearModule } from '../../engine/nn/linear-module.ts'
import type { BaseModel } from '../../engine/quant/source.ts'
import { loraMethod } from '../../engine/train/lora-method.ts'
import { plannedAdapter } from './adapter-config.ts'
import { stretchedBy } from './derive-base.ts'
import { adapterRoles, type TrainTask } from './task.ts'

/**
 * Checks the adapters that a run starts from before anything is written.
 *
 * @throws EngineError `invalid` for an adapter of another shape, or one that would have to be merged into a quantized base.
 */
export function checkStart(task: TrainTask, base: BaseModel, linears: readonly LinearModule[]): void {
  const { merged } = adapterRoles(task)
  stretchedBy(task)
  if (base.quantization && task.config.pissa_init) {
    throw onQuantized(
      'pissa_init',
      'PiSSA takes its adapter out of full-width weights; this base is quantized.',
    )
  }
  if (base.quantization && merged.length > 0) {
    const message = task.config.create_new_adapter
      ? 'Cannot create new adapter upon a quantized model.'
      : 'Quantized model only accepts a single adapter. Merge them first.'
    throw onQuantized('adapter_name_or_path', message)
  }
  checkSavedModules(task, base, linears)
  const shapes = new Map(
    linears.map(({ path, inFeatures, outFeatures }) => [path, [outFeatures, inFeatures]]),
  )
  for (const folder of task.adapters ?? []) {
    try {
      requireFit(readAdapter(folder), (path) => shapes.get(path), `${base.folder} (${folder})`)
    } catch (error) {
      if (!(error instanceof EngineError)) throw error
      throw new EngineError(error.kind, error.code, error.message, {
        param: 'adapter_name_or_path',
        cause: error,
      })
    }
  }
}

/** Packed weights cannot be trained as a whole. */
function checkSavedModules(task: TrainTask, base: BaseModel, linears: readonly LinearModule[]): void {
  const isPacked = base.quantization !== null || task.config.quantization_bit !== undefined
  if (!isPacked || task.config.finetuning_type !== 'lora') return
  const { saves } = loraMethod(plannedAdapter(task))
  const packed = linears.find(({ path }) => saves?.(`${path}.weight`))
  if (!packed) return
  throw onQuantized(
    'additional_target',
    `additional_target means ${packed.path}, which is held at few bits and cannot be trained as a whole.`,
  )
}

/** What of the request an adapter that goes on does not follow. */
export function startWarnings(task: TrainTask): { code: string; message: string }[] {
  return [...ropeWarnings(task), ...adapterWarnings(task)]
}

function ropeWarnings(task: TrainTask): { code: string; message: string }[] {
  const { rope_scaling: stretch, cutoff_len: length } = task.config
  if (stretch === undefined || stretchedBy(task) !== undefined) return []
  const message = `The model reads ${length} tokens (cutoff_len) as it is; rope_scaling ${stretch} changes nothing.`
  return [{ code: 'rope_scaling_unneeded', message }]
}

function adapterWarnings(task: TrainTask): { code: string; message: string }[] {
  const { resumed } = adapterRoles(task)
  if (resumed === undefined) return []
  const { r, lora_alpha, target_modules } = readPeftConfig(join(resumed, ADAPTER_CONFIG_FILE))
  const targets = Array.isArray(target_modules) ? target_modules.join(', ') : target_modules
  const message =
    `Training goes on with the adapter's own settings: rank ${r}, alpha ${lora_alpha}, targets ${targets}. ` +
    'Those of the request are for new adapters (create_new_adapter).'
  return [{ code: 'adapter_keeps_settings', message }]
}

function onQuantized(param: string, message: string): EngineError {
  return new EngineError('invalid', 'base_is_quantized', message, { param })
}
