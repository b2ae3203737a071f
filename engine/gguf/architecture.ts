import { familyOf } from '../models/index.ts'
import type { DecoderConfig } from '../nn/config.ts'
import { elementCount } from '../tensor.ts'
import { readConfig } from './config.ts'
import { malformedGguf } from './cursor.ts'
import type { GgufTensor } from './header.ts'
import type { GgufMetadata } from './metadata.ts'
import { ROPE_FACTORS } from './rope-scaling.ts'
import { type GgufSource, modelTensors, type TensorRole } from './tensors.ts'

/** One tensor on its way from the GGUF file to a Hugging Face folder. */
export interface MappedTensor {
  source: GgufTensor
  /** First element within the file's tensor, which may hold several of the folder's one after the other. */
  start: number
  /** Hugging Face's name and shape. */
  name: string
  shape: readonly number[]
  role: TensorRole
  /** Rows of each head, where its two rotary halves are interleaved and must be parted. */
  interleavedRows: number | undefined
  /** What the file added to every value. */
  offset: number
}

/** What a GGUF file's metadata and tensors say, in Hugging Face's terms. */
export interface MappedModel {
  config: Record<string, unknown>
  tensors: MappedTensor[]
}

/**
 * Maps metadata to config.json and GGUF's tensor names to Hugging Face's.
 *
 * @param readRopeFactors values of `rope_freqs.weight`, read only when the file has it.
 * @throws EngineError `unsupported` naming an architecture or variant that is not read; `invalid` listing tensors that are
 *   missing, unknown or of another shape than the metadata says.
 */
export function mapModel(
  metadata: GgufMetadata,
  tensors: ReadonlyMap<string, GgufTensor>,
  readRopeFactors: (tensor: GgufTensor) => Float32Array,
): MappedModel {
  const { architecture, raw } = readConfig(metadata, tensors, readRopeFactors)
  const config = familyOf(raw).parseConfig(raw)
  const expected = modelTensors(architecture, config, (matrix) => hasBias(config, matrix))
  return { config: raw, tensors: checkTensors(metadata.path, expected, tensors) }
}

/** The biases that each module of a layer belongs with, by its name in the file. */
const BIASES: Readonly<Record<string, keyof DecoderConfig['bias']>> = {
  attn_q: 'queryKeyValue',
  attn_k: 'queryKeyValue',
  attn_v: 'queryKeyValue',
  attn_qkv: 'queryKeyValue',
  attn_output: 'output',
  ffn_gate: 'mlp',
  ffn_up: 'mlp',
  ffn_down: 'mlp',
}

function hasBias({ bias }: DecoderConfig, matrix: string): boolean {
  const kind = BIASES[matrix.split('.')[2] ?? '']
  return kind !== undefined && bias[kind]
}

const SHOWN = 8

function checkTensors(
  path: string,
  expected: readonly GgufSource[],
  tensors: ReadonlyMap<string, GgufTensor>,
): MappedTensor[] {
  const problems: string[] = []
  const unknown = new Set(tensors.keys())
  unknown.delete(ROPE_FACTORS)
  const mapped: MappedTensor[] = []
  for (const planned of expected) {
    const { name, shape, from } = planned
    if (from instanceof Float32Array) continue // computed from the config, which was read from it
    unknown.delete(name)
    const tensor = tensors.get(name)
    if (!tensor) problems.push(`${name} is missing`)
    else if (String(tensor.shape) !== String(shape)) {
      problems.push(`${name} is [${tensor.shape}], but its metadata says [${shape}]`)
    } else mapped.push(...partsOf(planned, from, tensor))
  }
  for (const name of unknown) problems.push(`${name.slice(0, 100)} has no place in this architecture`)
  if (problems.length === 0) return mapped
  const more = problems.length > SHOWN ? `; and ${problems.length - SHOWN} more` : ''
  throw malformedGguf(path, `${problems.slice(0, SHOWN).join('; ')}${more}`)
}

function partsOf(
  { role, interleavedRows, offset = 0 }: GgufSource,
  from: Exclude<GgufSource['from'], Float32Array>,
  source: GgufTensor,
): MappedTensor[] {
  return from.map(({ name, shape }, index) => {
    return { source, start: index * elementCount(shape), name, shape, role, interleavedRows, offset }
  })
}
