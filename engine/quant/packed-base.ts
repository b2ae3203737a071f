import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { EngineError } from '../errors.ts'
import { unpackAwq } from '../packed/awq-reader.ts'
import { unpackGptq } from '../packed/gptq-reader.ts'
import { packedBytes } from '../packed/int-blocks.ts'
import { BLOCK_SIZE, CODEBOOKS, type PackedLayout, type WeightScheme } from '../packed/layout.ts'
import { elementCount } from '../tensor.ts'
import type { TensorEntry } from '../weights/safetensors-header.ts'
import { type PlannedTensor, SafetensorsWriter } from '../weights/safetensors-writer.ts'
import { WEIGHTS_FILE, WeightFolder } from '../weights/weight-folder.ts'
import { quantizeByCodebook } from './round-codebook-blocks.ts'
import { quantizeIntBlocks } from './round-int-blocks.ts'
import { codebookBlock } from './round-trip.ts'
import { type BaseModel, baseLinearModules } from './source.ts'

export interface PackOptions {
  /** For a base that isn't packed yet. */
  readonly scheme: WeightScheme
  /** Where the packed file goes; it is made. */
  readonly folder: string
  /** Weights of a row that share a scale; BLOCK_SIZE by default. Codebooks keep their own. */
  readonly blockSize?: number
  /** Pack the output head as well, at 8 bits: training reads it rarely, serving for every token. */
  readonly head?: boolean
  readonly signal?: AbortSignal
  readonly onProgress?: (done: number, total: number) => void
}

/**
 * Writes a base whose linear modules are packed, and all else as it is, into a folder, and returns the model over it.
 * The file is mapped by the session, so that no second copy of a weight is in memory. Of a module `path` it holds
 * path.weight.codes (uint8), .scales (float32), for integers .zeros (uint8) and, where inputs are reordered, .place
 * (int64: the place at which each input stands).
 *
 * @throws EngineError `cancelled` when the signal is aborted, `invalid` for weights that can't be packed.
 */
export async function packBase(base: BaseModel, options: PackOptions): Promise<BaseModel> {
  const { folder, signal, onProgress } = options
  const modules = baseLinearModules(base)
  const layout = layoutOf(base, options)
  const paths = new Set(modules.map(({ path }) => path))
  const head = options.head ? headOf(base) : undefined
  if (head) paths.add(head.path)
  const packers = modules.map((module) => packer(base, module, layout))
  if (head) packers.push(packer(base, head, { ...layout, scheme: 'int8' }))
  const kept = [...base.weights.entries.values()].filter(({ name }) => !isPartOf(name, paths))
  mkdirSync(folder, { recursive: true })
  const planned = [
    ...kept.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
    ...packers.flatMap((p) => p.plan),
  ]
  const writer = new SafetensorsWriter(join(folder, WEIGHTS_FILE), planned, {
    scheme: layout.scheme,
    block_size: String(layout.blockSize),
  })
  try {
    for (const { name } of kept) writer.write(name, base.weights.readRaw(name))
    for (const [index, { pack }] of packers.entries()) {
      signal?.throwIfAborted()
      for (const [name, bytes] of pack()) writer.write(name, bytes)
      onProgress?.(index + 1, packers.length)
      await setImmediate()
    }
    writer.finish()
  } catch (error) {
    writer.abort()
    throw error
  }
  return { ...base, folder, weights: WeightFolder.open(folder) }
}

interface Packer {
  readonly plan: readonly PlannedTensor[]
  readonly pack: () => readonly (readonly [name: string, bytes: Uint8Array])[]
}

interface Size {
  readonly path: string
  /** The tensor that is packed, where it isn't path.weight. */
  readonly source?: string
  readonly inFeatures: number
  readonly outFeatures: number
}

/** The output head as a linear module of its own; a tied one keeps its table for the embedding. */
function headOf({ config, quantization }: BaseModel): Size | undefined {
  const { names, hiddenSize, vocabSize, tieWordEmbeddings, normalizeHead } = config
  if (quantization || normalizeHead) return undefined
  const source = `${tieWordEmbeddings ? names.embedding : names.head}.weight`
  return { path: names.head, source, inFeatures: hiddenSize, outFeatures: vocabSize }
}

function layoutOf(
  { quantization }: BaseModel,
  { scheme, blockSize = BLOCK_SIZE }: PackOptions,
): PackedLayout {
  if (!quantization) return { scheme, blockSize }
  return { scheme: quantization.bits === 4 ? 'int4' : 'int8', blockSize: quantization.groupSize }
}

/** Tensors that packing replaces: a module's weight, or the parts of one that is packed already. Biases stay. */
function isPartOf(name: string, paths: ReadonlySet<string>): boolean {
  const end = name.lastIndexOf('.')
  return /^(weight|qweight|qzeros|scales|g_idx)$/.test(name.slice(end + 1)) && paths.has(name.slice(0, end))
}

function packer(base: BaseModel, size: Size, layout: PackedLayout): Packer {
  if (layout.scheme === 'nf4' || layout.scheme === 'fp4') {
    return packByCodebook(base, size, CODEBOOKS[layout.scheme])
  }
  const { path, inFeatures, outFeatures } = size
  const bits = layout.scheme === 'int4' ? 4 : 8
  const blockSize = Math.min(layout.blockSize, inFeatures)
  const blocks = Math.ceil(inFeatures / blockSize)
  const name = `${path}.weight`
  const ordered = hasOrder(base, path, blockSize)
  const plan: PlannedTensor[] = [
    { name: `${name}.codes`, dtype: 'U8', shape: [packedBytes(inFeatures * outFeatures, bits)] },
    { name: `${name}.scales`, dtype: 'F32', shape: [outFeatures, blocks] },
    { name: `${name}.zeros`, dtype: 'U8', shape: [packedBytes(outFeatures * blocks, bits)] },
  ]
  if (ordered) plan.push({ name: `${name}.place`, dtype: 'I64', shape: [inFeatures] })
  const pack = () => {
    const { blocks: packed, order } = readBlocks(base, size, bits, blockSize)
    const parts: [string, Uint8Array][] = [
      [`${name}.codes`, packed.codes],
      [`${name}.scales`, bytesOf(packed.scales)],
      [`${name}.zeros`, packed.zeros],
    ]
    if (ordered && order) parts.push([`${name}.place`, bytesOf(placesOf(order))])
    return parts
  }
  return { plan, pack }
}

function packByCodebook(base: BaseModel, size: Size, table: Float32Array): Packer {
  const { path, inFeatures, outFeatures } = size
  const name = `${path}.weight`
  const count = inFeatures * outFeatures
  const blockSize = codebookBlock(inFeatures)
  if (count % 2 === 1) {
    throw new EngineError('unsupported', 'weight_unpackable', `${name} has an odd number of weights`)
  }
  const plan: PlannedTensor[] = [
    { name: `${name}.codes`, dtype: 'U8', shape: [count / 2] },
    { name: `${name}.scales`, dtype: 'F32', shape: [count / blockSize, 1] },
  ]
  const pack = () => {
    const { codes, scales } = quantizeByCodebook(base.weights.readFloat32(name), table, blockSize)
    return [
      [`${name}.codes`, codes],
      [`${name}.scales`, bytesOf(scales)],
    ] as const
  }
  return { plan, pack }
}

/** A module's weight as blocks: as the checkpoint has packed it, or rounded to the nearest now. */
function readBlocks(
  base: BaseModel,
  { path, source, inFeatures, outFeatures }: Size,
  bits: 4 | 8,
  blockSize: number,
) {
  const { quantization, weights } = base
  if (!quantization) {
    const values = weights.readFloat32(source ?? `${path}.weight`)
    const options = { bits, rows: outFeatures, columns: inFeatures, blockSize, symmetric: bits === 8 }
    return { blocks: quantizeIntBlocks(values, options), order: undefined }
  }
  const sizes = { inFeatures, outFeatures, groupSize: blockSize }
  const parts = {
    qweight: integers(weights, `${path}.qweight`),
    qzeros: integers(weights, `${path}.qzeros`),
    scales: weights.readFloat32(`${path}.scales`),
  }
  checkParts(path, sizes, bits, parts)
  if (quantization.method === 'awq') return { blocks: unpackAwq({ ...sizes, ...parts }), order: undefined }
  const groupIndex = weights.has(`${path}.g_idx`) ? integers(weights, `${path}.g_idx`) : undefined
  const { zerosMinusOne } = quantization
  return unpackGptq({ ...sizes, ...parts, bits, zerosMinusOne, ...(groupIndex ? { groupIndex } : {}) })
}

function hasOrder({ quantization, weights }: BaseModel, path: string, blockSize: number): boolean {
  if (quantization?.method !== 'gptq' || !weights.has(`${path}.g_idx`)) return false
  return integers(weights, `${path}.g_idx`).some((group, input) => group !== Math.floor(input / blockSize))
}

function checkParts(
  path: string,
  { inFeatures, outFeatures, groupSize }: { inFeatures: number; outFeatures: number; groupSize: number },
  bits: 4 | 8,
  parts: { qweight: Int32Array; qzeros: Int32Array; scales: Float32Array },
): void {
  const groups = Math.ceil(inFeatures / groupSize)
  const expected = {
    qweight: (inFeatures * outFeatures * bits) / 32,
    qzeros: (groups * outFeatures * bits) / 32,
    scales: groups * outFeatures,
  }
  for (const [part, count] of Object.entries(expected)) {
    const found = parts[part as keyof typeof parts].length
    if (found === count) continue
    const what = `${path}.${part} has ${found} elements; ${bits} bits in groups of ${groupSize} need ${count}`
    throw new EngineError(
      'invalid',
      'weight_mismatch',
      `${what} for a weight [${outFeatures}, ${inFeatures}]`,
    )
  }
}

function integers(weights: WeightFolder, name: string): Int32Array {
  const { dtype, shape }: TensorEntry = weights.entry(name)
  if (dtype !== 'I32') {
    throw new EngineError('invalid', 'weight_mismatch', `${name} is ${dtype}; packed weights are I32`)
  }
  return new Int32Array(weights.readRaw(name).slice().buffer, 0, elementCount(shape))
}

/** Where each input stands, from which input stands where. */
function placesOf(order: Int32Array): BigInt64Array {
  const places = new BigInt64Array(order.length)
  for (const [place, input] of order.entries()) places[input] = BigInt(place)
  return places
}

function bytesOf(values: Float32Array | BigInt64Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
}
