import { statSync } from 'node:fs'
import { join } from 'node:path'
import { familyOf } from '../../engine/models/index.ts'
import { readRawConfig } from '../../engine/models/raw-config.ts'
import { WeightFolder } from '../../engine/weights/safetensors.ts'

/** What a folder in Hugging Face layout says about itself, without loading a weight. */
export interface ModelFacts {
  modelType: string
  /** Weights of all tensors; tied ones count once. */
  parameters: number
  /** Bytes of all tensors. */
  weightBytes: number
  /** The most frequent element type, as safetensors names it: F32, F16 or BF16. */
  dtype: string
  isQuantized: boolean
}

const known = new Map<string, { stamp: string; facts: ModelFacts }>()

/**
 * Reads a model folder's config and the headers of its weights, once for each state of its config.json.
 *
 * @throws EngineError `not_found` or `invalid` naming the missing or malformed file.
 */
export function readModelFacts(folder: string): ModelFacts {
  const config = readRawConfig(folder)
  const { mtimeMs, ino } = statSync(join(folder, 'config.json'))
  const stamp = `${mtimeMs}:${ino}`
  const cached = known.get(folder)
  if (cached?.stamp === stamp) return cached.facts
  const weights = WeightFolder.open(folder)
  try {
    let parameters = 0
    let weightBytes = 0
    const parametersByType = new Map<string, number>()
    for (const { dtype, shape, byteLength } of weights.entries.values()) {
      const size = shape.reduce((product, length) => product * length, 1)
      parameters += size
      weightBytes += byteLength
      parametersByType.set(dtype, (parametersByType.get(dtype) ?? 0) + size)
    }
    const [dtype = 'F32'] = [...parametersByType].sort((a, b) => b[1] - a[1])[0] ?? []
    const isQuantized = config.quantization_config !== undefined && config.quantization_config !== null
    const facts = { modelType: config.model_type, parameters, weightBytes, dtype, isQuantized }
    known.set(folder, { stamp, facts })
    return facts
  } finally {
    weights.close()
  }
}

/** The context length that config.json states; null where it cannot be read or is of no known family. */
export function contextLength(folder: string): number | null {
  try {
    // How the weights are quantized says nothing of it, and a family's own reader refuses it.
    const { quantization_config: _, ...raw } = readRawConfig(folder)
    return familyOf(raw).parseConfig(raw).maxPositions
  } catch {
    return null
  }
}
