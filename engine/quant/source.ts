import { z } from 'zod'
import { familyOf, type OpenModel } from '../models/index.ts'
import { parseWith, type RawConfig, readRawConfig, unsupportedField } from '../models/raw-config.ts'
import { sequenceAttention } from '../nn/attention.ts'
import type { LinearModule } from '../nn/linear-module.ts'
import { ModelBuilder } from '../nn/model-builder.ts'
import type { TensorEntry } from '../weights/safetensors-header.ts'
import { WeightFolder } from '../weights/weight-folder.ts'
import { withGptqNames } from './gptq-modules.ts'

/** How the linear modules of a checkpoint are packed already. */
export type SourceQuantization =
  | {
      readonly method: 'gptq'
      readonly bits: 4 | 8
      readonly groupSize: number
      readonly zerosMinusOne: boolean
    }
  | { readonly method: 'awq'; readonly bits: 4; readonly groupSize: number }

/** A model folder to train over, packed or not. */
export interface BaseModel extends OpenModel {
  /** null where the weights are floating-point. */
  readonly quantization: SourceQuantization | null
}

const common = z.looseObject({ bits: z.number(), group_size: z.number().int() })

/** Reads config.json and the weights' headers, as openModel does, also of GPTQ and AWQ folders. */
export function openBase(folder: string): BaseModel {
  const raw = readRawConfig(folder)
  const { quantization_config: _, ...plain } = raw
  const family = familyOf(raw)
  const quantization = parseQuantization(raw)
  const weights = WeightFolder.open(folder)
  const config = withGptqNames(family.parseConfig(plain as RawConfig), (tensor) => weights.has(tensor))
  return { folder, family, raw, config, quantization, weights }
}

/** @throws EngineError `unsupported` naming the field of a method or variant that isn't read. */
function parseQuantization(raw: RawConfig): SourceQuantization | null {
  const given = raw.quantization_config as Record<string, unknown> | null | undefined
  if (!given) return null
  const refuse = (field: string, supported: string) =>
    unsupportedField(raw, `quantization_config.${field}`, given[field], supported)
  const method = given.quant_method
  if (method !== 'gptq' && method !== 'awq') throw refuse('quant_method', "'gptq' and 'awq' are")
  const { bits, group_size: size } = parseWith(common, given as RawConfig)
  // -1 stands for one group for a whole row; no row is this long
  const groupSize = size === -1 ? 2 ** 30 : size
  if (groupSize < 1) throw refuse('group_size', '-1 and sizes from 1 on are')
  if (method === 'awq') {
    if (bits !== 4) throw refuse('bits', '4 is')
    const version = String(given.version ?? 'gemm').toLowerCase()
    if (version !== 'gemm') throw refuse('version', "'gemm' is")
    return { method, bits, groupSize }
  }
  if (bits !== 4 && bits !== 8) throw refuse('bits', '4 and 8 are')
  const format = given.checkpoint_format ?? 'gptq'
  if (format !== 'gptq' && format !== 'gptq_v2') throw refuse('checkpoint_format', "'gptq' and 'gptq_v2' are")
  return { method, bits, groupSize, zerosMinusOne: format === 'gptq' }
}

/** A weight [out, in] in place of every packed module's parts, as if it were float16; other tensors as they are. */
function denseEntries({ weights, quantization }: BaseModel): Map<string, TensorEntry> {
  const dense = new Map(weights.entries)
  if (!quantization) return dense
  const perWord = 32 / quantization.bits
  for (const [name, entry] of weights.entries) {
    if (!name.endsWith('.qweight')) continue
    const [rows, columns] = entry.shape as [number, number]
    const shape = quantization.method === 'gptq' ? [columns, rows * perWord] : [columns * perWord, rows]
    const weight = name.replace(/qweight$/, 'weight')
    for (const part of ['qweight', 'qzeros', 'scales', 'g_idx']) dense.delete(name.replace(/qweight$/, part))
    dense.set(weight, { ...entry, name: weight, dtype: 'F16', shape })
  }
  return dense
}

/** The linear modules of a base in the order in which the model uses them, also of a packed one; nothing is loaded. */
export function baseLinearModules(base: BaseModel): readonly LinearModule[] {
  const entries = denseEntries(base)
  const builder = new ModelBuilder(base.weights.withEntries(entries), {})
  base.family.build(builder, base.config, { attention: sequenceAttention(builder), positions: 1 })
  return builder.linears
}

/** Weights of all tensors, a packed one counting as what it stands for. */
export function baseParameterCount(base: BaseModel): number {
  let count = 0
  for (const { shape } of denseEntries(base).values()) {
    count += shape.reduce((product, length) => product * length, 1)
  }
  return count
}
