import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { EngineError } from '../errors.ts'
import { writeFileDurably } from '../weights/atomic-folder.ts'
import { encodeFloat32 } from '../weights/dtypes.ts'
import { WeightFolder, writeSafetensors } from '../weights/safetensors.ts'
import { loraScale, type PeftConfig, readPeftConfig } from './peft-config.ts'

export { loraScale, type PeftConfig, type PeftConfigFields, peftConfig } from './peft-config.ts'

export const ADAPTER_CONFIG_FILE = 'adapter_config.json'
export const ADAPTER_WEIGHTS_FILE = 'adapter_model.safetensors'

/** One adapted linear layer: y = x·Wᵀ + scale · (x·Aᵀ)·Bᵀ. */
export interface LoraModule {
  /** [r, in] */
  a: Float32Array
  aShape: [number, number]
  /** [out, r] */
  b: Float32Array
  bShape: [number, number]
}

/** A LoRA adapter (Hu et al. 2021, arXiv 2106.09685), weights in float32. */
export interface LoraAdapter {
  config: PeftConfig
  /** alpha / r, or alpha / sqrt(r) with use_rslora; not multiplied into B. */
  scale: number
  /** By module path in the base, such as 'model.layers.0.self_attn.q_proj'. */
  modules: Map<string, LoraModule>
}

/** PEFT's name of a LoRA weight. */
export function loraTensorName(modulePath: string, matrix: 'A' | 'B'): string {
  return `base_model.model.${modulePath}.lora_${matrix}.weight`
}

/**
 * Reads a PEFT folder (adapter_config.json and adapter_model.safetensors).
 *
 * @throws EngineError `not_found`, `unsupported` for anything but plain LoRA, `invalid` listing every bad tensor.
 */
export function readAdapter(folder: string): LoraAdapter {
  const config = readPeftConfig(join(folder, ADAPTER_CONFIG_FILE))
  if (!existsSync(join(folder, ADAPTER_WEIGHTS_FILE))) throw noWeights(folder)
  const weights = WeightFolder.open(folder, { fileName: ADAPTER_WEIGHTS_FILE })
  try {
    const modules = new Map<string, LoraModule>()
    for (const modulePath of checkTensors(weights, config.r))
      modules.set(modulePath, readModule(weights, modulePath))
    return { config, scale: loraScale(config), modules }
  } finally {
    weights.close()
  }
}

/** Writes a PEFT folder, weights in float32; what else the folder holds stays. */
export function writeAdapter(folder: string, adapter: Omit<LoraAdapter, 'scale'>): void {
  mkdirSync(folder, { recursive: true })
  const tensors = [...adapter.modules]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([modulePath, { a, aShape, b, bShape }]) => [
      {
        name: loraTensorName(modulePath, 'A'),
        dtype: 'F32' as const,
        shape: aShape,
        data: encodeFloat32(a, 'float32'),
      },
      {
        name: loraTensorName(modulePath, 'B'),
        dtype: 'F32' as const,
        shape: bShape,
        data: encodeFloat32(b, 'float32'),
      },
    ])
  writeSafetensors(join(folder, ADAPTER_WEIGHTS_FILE), tensors)
  const config = Object.fromEntries(Object.entries(adapter.config).sort(([a], [b]) => (a < b ? -1 : 1)))
  writeFileDurably(join(folder, ADAPTER_CONFIG_FILE), `${JSON.stringify(config, null, 2)}\n`)
}

const TENSOR_NAME = /^base_model\.model\.(.+)\.lora_([AB])\.weight$/

/** Checks names, dtypes and shapes by the header alone; returns the module paths. */
function checkTensors(weights: WeightFolder, rank: number): string[] {
  const problems: string[] = []
  const found = new Map<string, Set<string>>()
  for (const { name, dtype, shape } of weights.entries.values()) {
    const [, modulePath, matrix] = TENSOR_NAME.exec(name) ?? []
    if (modulePath === undefined || matrix === undefined) {
      problems.push(`${name} is no LoRA weight of a linear layer`)
      continue
    }
    found.set(modulePath, (found.get(modulePath) ?? new Set()).add(matrix))
    if (!['F32', 'F16', 'BF16'].includes(dtype)) problems.push(`${name} is ${dtype}, not F32, F16 or BF16`)
    const rankAt = matrix === 'A' ? 0 : 1
    if (shape.length !== 2 || shape[rankAt] !== rank || shape[1 - rankAt] === 0) {
      const form = matrix === 'A' ? '[r, in]' : '[out, r]'
      problems.push(
        `${name} has shape [${shape}], expected ${form} with r = ${rank} of ${ADAPTER_CONFIG_FILE}`,
      )
    }
  }
  for (const [modulePath, matrices] of found) {
    const missing = ['A', 'B'].find((matrix) => !matrices.has(matrix))
    if (missing) problems.push(`${modulePath} has no lora_${missing}`)
  }
  if (found.size === 0) problems.push('it has no LoRA weights')
  if (problems.length > 0) throw badTensors(join(weights.folder, ADAPTER_WEIGHTS_FILE), problems)
  return [...found.keys()]
}

function readModule(weights: WeightFolder, modulePath: string): LoraModule {
  const [a, b] = (['A', 'B'] as const).map((matrix) => loraTensorName(modulePath, matrix)) as [string, string]
  return {
    a: weights.readFloat32(a),
    aShape: weights.entry(a).shape as [number, number],
    b: weights.readFloat32(b),
    bShape: weights.entry(b).shape as [number, number],
  }
}

const SHOWN = 10

function badTensors(path: string, problems: readonly string[]): EngineError {
  const more = problems.length > SHOWN ? `; and ${problems.length - SHOWN} more` : ''
  return new EngineError(
    'invalid',
    'adapter_malformed',
    `${path}: ${problems.slice(0, SHOWN).join('; ')}${more}`,
  )
}

function noWeights(folder: string): EngineError {
  const pickle = existsSync(join(folder, 'adapter_model.bin'))
    ? '. adapter_model.bin is a pickle, which can run code and is never read: save the adapter as safetensors'
    : ''
  return new EngineError(
    'not_found',
    'adapter_not_found',
    `${folder} has no ${ADAPTER_WEIGHTS_FILE}${pickle}`,
  )
}
