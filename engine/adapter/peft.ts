import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { EngineError } from '../errors.ts'
import { writeFileDurably } from '../weights/atomic-folder.ts'
import { encodeFloat32 } from '../weights/dtypes.ts'
import { WeightFolder, writeSafetensors } from '../weights/safetensors.ts'
import { loraSize, type PeftConfig, readPeftConfig } from './peft-config.ts'

export { loraSize, type PeftConfig, peftConfig } from './peft-config.ts'

export const ADAPTER_CONFIG_FILE = 'adapter_config.json'
const ADAPTER_WEIGHTS_FILE = 'adapter_model.safetensors'
/** What a PEFT folder consists of. */
export const ADAPTER_FILES = [ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE]

/** One adapted linear layer: y = x·Wᵀ + scale · (x·Aᵀ)·Bᵀ, before DoRA's magnitude. */
export interface LoraModule {
  /** [r, in] */
  a: Float32Array
  aShape: [number, number]
  /** [out, r] */
  b: Float32Array
  bShape: [number, number]
  /** alpha / r, or alpha / sqrt(r) with use_rslora; not multiplied into B. */
  scale: number
  /** DoRA's length of each row of the adapted weight, [out]. */
  magnitude?: Float32Array
}

/** A tensor of the base that was trained as a whole (modules_to_save). */
export interface SavedTensor {
  shape: readonly number[]
  data: Float32Array
}

/** A LoRA adapter (Hu et al. 2021, arXiv 2106.09685), or DoRA (Liu et al. 2024, arXiv 2402.09353), in float32. */
export interface LoraAdapter {
  config: PeftConfig
  /** By module path in the base, such as 'model.layers.0.self_attn.q_proj'. */
  modules: Map<string, LoraModule>
  /** By tensor name in the base, such as 'model.embed_tokens.weight'. */
  saved: Map<string, SavedTensor>
}

const PREFIX = 'base_model.model.'
const TIED_HEAD = 'lm_head.weight'

/** PEFT's name of a LoRA weight, or of DoRA's magnitude vector. */
function loraTensorName(modulePath: string, part: LoraPart): string {
  return `${PREFIX}${modulePath}.${part === 'magnitude' ? 'lora_magnitude_vector' : `lora_${part}.weight`}`
}

export type LoraPart = 'A' | 'B' | 'magnitude'

const TENSOR_NAME = /^base_model\.model\.(.+)\.lora_(?:([AB])\.weight|magnitude_vector)$/

/** The module and the part that a tensor's name stands for; null for other tensors. */
export function parseLoraName(name: string): { modulePath: string; part: LoraPart } | null {
  const match = TENSOR_NAME.exec(name)
  return match ? { modulePath: match[1]!, part: (match[2] as 'A' | 'B' | undefined) ?? 'magnitude' } : null
}

/**
 * Reads a PEFT folder (adapter_config.json and adapter_model.safetensors).
 *
 * @throws EngineError `not_found`, `unsupported` for anything but LoRA and DoRA, `invalid` listing every bad tensor.
 */
export function readAdapter(folder: string): LoraAdapter {
  const config = readPeftConfig(join(folder, ADAPTER_CONFIG_FILE))
  if (!existsSync(join(folder, ADAPTER_WEIGHTS_FILE))) throw noWeights(folder)
  const weights = WeightFolder.open(folder, { fileName: ADAPTER_WEIGHTS_FILE })
  try {
    const { modulePaths, savedNames } = checkTensors(weights, config)
    const modules = modulePaths.map((path) => [path, readModule(weights, path, config)] as const)
    const own = savedNames.filter((name) => !(config.ensure_weight_tying && name === TIED_HEAD))
    const saved = own.map((name) => {
      const { shape } = weights.entry(PREFIX + name)
      return [name, { shape, data: weights.readFloat32(PREFIX + name) }] as const
    })
    return { config, modules: new Map(modules), saved: new Map(saved) }
  } finally {
    weights.close()
  }
}

/** Writes a PEFT folder, weights in float32; what else the folder holds stays. */
export function writeAdapter(folder: string, adapter: LoraAdapter): void {
  mkdirSync(folder, { recursive: true })
  const tensors = [...adapter.modules].flatMap(([path, { a, aShape, b, bShape, magnitude }]) => [
    tensor(loraTensorName(path, 'A'), aShape, a),
    tensor(loraTensorName(path, 'B'), bShape, b),
    ...(magnitude ? [tensor(loraTensorName(path, 'magnitude'), [magnitude.length], magnitude)] : []),
  ])
  for (const [name, { shape, data }] of adapter.saved) {
    tensors.push(tensor(PREFIX + name, shape, data))
    // PEFT asks for the head by name, although it is the same matrix.
    const isTied = adapter.config.ensure_weight_tying === true && name.endsWith('embed_tokens.weight')
    if (isTied) tensors.push(tensor(PREFIX + TIED_HEAD, shape, data))
  }
  tensors.sort((a, b) => (a.name < b.name ? -1 : 1))
  writeSafetensors(join(folder, ADAPTER_WEIGHTS_FILE), tensors)
  const config = Object.fromEntries(Object.entries(adapter.config).sort(([a], [b]) => (a < b ? -1 : 1)))
  writeFileDurably(join(folder, ADAPTER_CONFIG_FILE), `${JSON.stringify(config, null, 2)}\n`)
}

function tensor(name: string, shape: readonly number[], data: Float32Array) {
  return { name, dtype: 'F32' as const, shape, data: encodeFloat32(data, 'float32') }
}

/** Checks names, dtypes and shapes by the header alone. */
function checkTensors(
  weights: WeightFolder,
  config: PeftConfig,
): { modulePaths: string[]; savedNames: string[] } {
  const problems: string[] = []
  const found = new Map<string, Set<LoraPart>>()
  const savedNames: string[] = []
  for (const { name, dtype, shape } of weights.entries.values()) {
    if (!['F32', 'F16', 'BF16'].includes(dtype)) problems.push(`${name} is ${dtype}, not F32, F16 or BF16`)
    const parsed = parseLoraName(name)
    if (parsed) {
      found.set(parsed.modulePath, (found.get(parsed.modulePath) ?? new Set()).add(parsed.part))
      problems.push(...shapeProblem(name, shape, parsed.part, loraSize(config, parsed.modulePath).rank))
    } else if (isSavedTensor(name)) savedNames.push(name.slice(PREFIX.length))
    else problems.push(`${name} is neither a LoRA weight of a linear layer nor a whole weight of the base`)
  }
  const parts: LoraPart[] = config.use_dora ? ['A', 'B', 'magnitude'] : ['A', 'B']
  for (const [modulePath, there] of found) {
    for (const part of parts) {
      if (!there.has(part)) problems.push(`there is no ${loraTensorName(modulePath, part)}`)
    }
    if (!config.use_dora && there.has('magnitude'))
      problems.push(`${modulePath} has a magnitude, but use_dora is false`)
  }
  if (found.size + savedNames.length === 0) problems.push('it has no LoRA weights')
  if (problems.length > 0) throw badTensors(join(weights.folder, ADAPTER_WEIGHTS_FILE), problems)
  return { modulePaths: [...found.keys()], savedNames }
}

function isSavedTensor(name: string): boolean {
  return (
    name.startsWith(PREFIX) && /\.(weight|bias)$/.test(name) && !/\.lora_[^.]+\.(weight|bias)$/.test(name)
  )
}

function shapeProblem(name: string, shape: readonly number[], part: LoraPart, rank: number): string[] {
  if (part === 'magnitude') {
    return shape.length === 1 ? [] : [`${name} has shape [${shape}], expected [out]`]
  }
  const rankAt = part === 'A' ? 0 : 1
  if (shape.length === 2 && shape[rankAt] === rank && shape[1 - rankAt] !== 0) return []
  const form = part === 'A' ? '[r, in]' : '[out, r]'
  return [`${name} has shape [${shape}], expected ${form} with r = ${rank} of ${ADAPTER_CONFIG_FILE}`]
}

function readModule(weights: WeightFolder, modulePath: string, config: PeftConfig): LoraModule {
  const [a, b] = (['A', 'B'] as const).map((part) => loraTensorName(modulePath, part)) as [string, string]
  const magnitude = loraTensorName(modulePath, 'magnitude')
  return {
    a: weights.readFloat32(a),
    aShape: weights.entry(a).shape as [number, number],
    b: weights.readFloat32(b),
    bShape: weights.entry(b).shape as [number, number],
    scale: loraSize(config, modulePath).scale,
    ...(config.use_dora ? { magnitude: weights.readFloat32(magnitude) } : {}),
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
