import { EngineError } from '../errors.ts'
import type { TrainConfig } from './config.ts'

export type FreezeConfig = Pick<
  TrainConfig,
  'freeze_trainable_layers' | 'freeze_trainable_modules' | 'freeze_extra_modules' | 'use_llama_pro'
>

/**
 * LLaMA-Factory's choice of what finetuning_type freeze trains: the named modules of the last n layers (the first n for
 * -n; with LLaMA Pro, of the blocks that were put in), and whole modules outside of the layers.
 *
 * @param names all tensors of the base
 * @returns whether a tensor is trained
 * @throws EngineError `invalid` for modules that the model doesn't have, with those it has.
 */
export function freezeSelection(
  config: FreezeConfig,
  names: readonly string[],
  layers: number,
): (tensor: string) => boolean {
  const inLayers = new Set<string>()
  const outside = new Set<string>()
  for (const name of names) {
    const place = layerPlace(name)
    if (place) inLayers.add(place.module)
    else outside.add(name.split('.').at(-2) ?? name)
  }
  const { freeze_trainable_modules: modules, freeze_extra_modules: extra = [] } = config
  requireKnown(
    'freeze_trainable_modules',
    modules.filter((name) => name !== 'all'),
    inLayers,
  )
  requireKnown('freeze_extra_modules', extra, outside)
  const trained = new Set(trainableLayers(config, layers))
  return (tensor) => {
    const place = layerPlace(tensor)
    if (!place) return extra.includes(tensor.split('.').at(-2) ?? tensor)
    return trained.has(place.layer) && (modules.includes('all') || modules.includes(place.module))
  }
}

/**
 * Indices of the layers that are trained. With LLaMA Pro (Wu et al. 2024, arXiv:2401.02415) n blocks stand behind every
 * layers / n - 1 others.
 *
 * @throws EngineError `invalid` when the layers cannot be parted so, or there are fewer.
 */
export function trainableLayers(config: FreezeConfig, layers: number): number[] {
  const { freeze_trainable_layers: count, use_llama_pro: pro } = config
  const indices = Array.from({ length: layers }, (_, index) => index)
  if (pro) {
    if (layers % count !== 0) {
      const message = `num_layers ${layers} should be divisible by freeze_trainable_layers ${count}, the number of blocks that were put in`
      throw new EngineError('invalid', 'layers_not_divisible', message, { param: 'freeze_trainable_layers' })
    }
    const stride = layers / count
    return indices.filter((index) => index % stride === stride - 1)
  }
  if (Math.abs(count) > layers) {
    const message = `freeze_trainable_layers ${count} is more than the ${layers} layers of this model`
    throw new EngineError('invalid', 'too_many_layers', message, { param: 'freeze_trainable_layers' })
  }
  return count > 0 ? indices.slice(layers - count) : indices.slice(0, -count)
}

/** The layer of a tensor and the module inside it, 'self_attn' of 'model.layers.3.self_attn.q_proj.weight'. */
function layerPlace(tensor: string): { layer: number; module: string } | null {
  const match = /\.(\d+)\.([^.]+)/.exec(tensor)
  return match ? { layer: Number(match[1]), module: match[2]! } : null
}

function requireKnown(field: string, names: readonly string[], known: ReadonlySet<string>): void {
  const missing = names.filter((name) => !known.has(name))
  if (missing.length === 0) return
  const message = `${field}: ${missing.join(', ')} is not found, please choose from ${[...known].join(', ')}`
  throw new EngineError('invalid', 'freeze_module_unknown', message, { param: field })
}
