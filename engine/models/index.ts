import { EngineError } from '../errors.ts'
import { WeightFolder } from '../weights/safetensors.ts'
import { type DecoderConfig, type RawConfig, readRawConfig } from './config.ts'
import type { Family } from './family.ts'
import { llama } from './llama.ts'
import { qwen2 } from './qwen2.ts'

const families: readonly Family[] = [llama, qwen2]

/** model_type of every family that can be built. */
export const supportedModelTypes: readonly string[] = families.map((family) => family.modelType)

/** A model folder that has been read: its family, its config and its (unread) weights. */
export interface OpenModel {
  readonly folder: string
  readonly family: Family
  readonly raw: RawConfig
  readonly config: DecoderConfig
  readonly weights: WeightFolder
}

/** The family of a config.json; throws `unsupported` listing the known ones. */
export function familyOf(raw: RawConfig): Family {
  const family = families.find(({ modelType }) => modelType === raw.model_type)
  if (family) return family
  throw new EngineError(
    'unsupported',
    'model_type_unsupported',
    `model_type '${raw.model_type}' is not supported; supported: ${supportedModelTypes.join(', ')}`,
    { param: 'model_type' },
  )
}

/** Reads config.json and the weights' headers of a Hugging Face folder; no weight is loaded. */
export function openModel(folder: string): OpenModel {
  const raw = readRawConfig(folder)
  const family = familyOf(raw)
  return { folder, family, raw, config: family.parseConfig(raw), weights: WeightFolder.open(folder) }
}
