import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type LoraModule, peftConfig, writeAdapter } from '../../../engine/adapter/peft.ts'
import { encodeFloat32 } from '../../../engine/weights/dtypes.ts'
import { writeSafetensors } from '../../../engine/weights/safetensors.ts'

/** What make.py wrote for one case. */
export interface FamilyCase {
  readonly config: Record<string, unknown>
  readonly shapes: Readonly<Record<string, number[]>>
  readonly zeroNorms: boolean
  readonly inputIds: readonly number[][]
  /** Tokens of each row that are not padding. */
  readonly lengths: readonly number[]
  /** Modules that PEFT's all-linear adapts, and experts. */
  readonly linear: readonly string[]
  readonly experts: readonly string[]
  readonly rank: number
  readonly scale: number
  /** Of all tokens that are not padding, row by row. */
  readonly logits: readonly number[]
  readonly adaptedLogits: readonly number[]
  readonly loss: number
  /** Norm and sum of each LoRA matrix's gradient. */
  readonly gradients: Readonly<Record<string, [number, number]>>
}

export function readCase(name: string): FamilyCase {
  return JSON.parse(readFileSync(join(import.meta.dirname, `${name}.json`), 'utf8'))
}

/** make.py's numbers: uniform in [-1, 1) from a linear congruential generator that is seeded by the name's FNV-1a hash. */
function numbers(name: string, count: number): Float32Array {
  let state = Buffer.from(name).reduce((hash, byte) => Math.imul(hash ^ byte, 16777619) >>> 0, 2166136261)
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 31 - 1
  })
}

function weight(name: string, shape: readonly number[], zeroNorms: boolean): Float32Array {
  const values = numbers(name, product(shape))
  if (shape.length === 2) return values.map((value) => value * (1.5 / Math.sqrt(shape[1]!)))
  if (name.endsWith('.bias')) return values.map((value) => value * 0.3)
  return values.map((value) => (zeroNorms ? 0 : 1) + 0.3 * value)
}

const product = (shape: readonly number[]) => shape.reduce((size, dim) => size * dim, 1)

/** Writes the model's folder. */
export function writeModel(folder: string, { config, shapes, zeroNorms }: FamilyCase): string {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  const tensors = Object.entries(shapes).map(([name, shape]) => ({
    name,
    dtype: 'F32' as const,
    shape,
    data: encodeFloat32(weight(name, shape, zeroNorms), 'float32'),
  }))
  writeSafetensors(join(folder, 'model.safetensors'), tensors)
  return folder
}

/** The adapter of one module. */
export function loraModule({ shapes, rank, scale }: FamilyCase, path: string): LoraModule {
  const [rows, columns] = shapes[`${path}.weight`] as [number, number]
  const scaled = (name: string, count: number) => numbers(name, count).map((value) => 0.3 * value)
  return {
    a: scaled(`${path}.lora_A`, rank * columns),
    aShape: [rank, columns],
    b: scaled(`${path}.lora_B`, rows * rank),
    bShape: [rows, rank],
    scale,
  }
}

/** Writes a PEFT folder with an adapter on every module of the case. */
export function writeCaseAdapter(folder: string, reference: FamilyCase): string {
  const paths = [...reference.linear, ...reference.experts]
  const config = peftConfig({
    r: reference.rank,
    lora_alpha: reference.rank * reference.scale,
    target_modules: paths,
    base_model_name_or_path: null,
  })
  const modules = new Map(paths.map((path) => [path, loraModule(reference, path)]))
  writeAdapter(folder, { config, modules, saved: new Map() })
  return folder
}
