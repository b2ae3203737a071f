import { EngineError } from '../errors.ts'
import type { DecoderConfig } from '../nn/config.ts'
import { WeightFolder } from '../weights/safetensors.ts'
import { baichuan } from './baichuan.ts'
import { chatglm } from './chatglm.ts'
import type { Family } from './family.ts'
import { gemma, gemma2 } from './gemma.ts'
import { gemma3Text } from './gemma3.ts'
import { glm, glm4 } from './glm.ts'
import { llama, yi } from './llama.ts'
import { mistral } from './mistral.ts'
import { mixtral } from './mixtral.ts'
import { olmo2 } from './olmo2.ts'
import { phi3 } from './phi3.ts'
import { qwen2 } from './qwen2.ts'
import { qwen3 } from './qwen3.ts'
import { qwen3Moe } from './qwen3-moe.ts'
import { type RawConfig, readRawConfig } from './raw-config.ts'

const families: readonly Family[] = [
  llama,
  yi,
  qwen2,
  qwen3,
  qwen3Moe,
  mistral,
  mixtral,
  gemma,
  gemma2,
  gemma3Text,
  phi3,
  olmo2,
  glm,
  glm4,
  chatglm,
  baichuan,
]

/** Configs of models that also see or hear keep those of their parts in these fields. */
const PARTS = ['text_config', 'vision_config', 'audio_config']

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

/** The family of a config.json; throws `unsupported` listing the known ones, or naming the part that isn't text. */
export function familyOf(raw: RawConfig): Family {
  const part = PARTS.find((field) => raw[field] !== undefined && raw[field] !== null)
  if (part) {
    throw new EngineError(
      'unsupported',
      'config_unsupported',
      `config.json of ${raw.model_type} has ${part}: models with a vision or audio tower are not supported; ` +
        'use a text-only model',
      { param: part },
    )
  }
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
