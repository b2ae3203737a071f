import { basename, join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { EngineError } from '../errors.ts'
import type { CheckpointTensor, GgufSource } from '../gguf/tensors.ts'
import type { OpenModel } from '../models/index.ts'
import type { IntBlocks } from '../packed/int-blocks.ts'
import type { GgufBlockType } from '../quant/gguf-blocks.ts'
import { SUPER_GRIDS } from '../quant/gguf-codes-k.ts'
import { GGUF_GRIDS, isGgufIntType, packGgufBlocks } from '../quant/gguf-int-blocks.ts'
import type { QuantizedSource } from '../quant/quantized-source.ts'
import { checkCancelled } from '../weights/atomic-folder.ts'
import { checkRange, decodeFloat32, encodeFloat32 } from '../weights/dtypes.ts'
import type { ByteProgress } from '../weights/model-writer.ts'
import type { WeightFolder } from '../weights/safetensors.ts'
import { ggufModel } from './gguf-architecture.ts'
import { type GgufTokenizerOptions, ggufName, ggufTokenizer } from './gguf-tokenizer.ts'
import {
  FILE_TYPE_NUMBERS,
  type GgufFileType,
  type GgufStorage,
  storageOf,
  storedBytes,
} from './gguf-types.ts'
import { type GgufMetadataValue, type GgufTensorPlan, GgufWriter } from './gguf-writer.ts'

export interface GgufExportOptions extends GgufTokenizerOptions {
  model: OpenModel
  /** The model's name in the metadata; its folder's by default. */
  name?: string
  type: GgufFileType
  /** Matrices that are packed already, or rounded to the grid of `type` (GGUF_GRIDS), and what else changed with them. */
  quantized?: QuantizedSource
  onProgress?: (progress: ByteProgress) => void
  signal?: AbortSignal
}

/** Float32 values in memory at a time, unless one head is larger. */
const CHUNK_VALUES = 1 << 18

/** Memory that one chunk after another goes through: fresh memory for each would cost more than packing it. */
class Scratch {
  #memory = new ArrayBuffer(0)
  /** At least so many bytes; what was in them before is lost. */
  bytes(length: number): Uint8Array {
    if (this.#memory.byteLength < length) this.#memory = new ArrayBuffer(length)
    return new Uint8Array(this.#memory, 0, length)
  }

  floats(length: number): Float32Array {
    return new Float32Array(this.bytes(4 * length).buffer, 0, length)
  }
}

/** Of a chunk: its bytes as they were read, its values, and what they are packed as. */
interface Buffers {
  readonly read: Scratch
  readonly values: Scratch
  readonly packed: Scratch
}

/** A GGUF file before it is written. */
export interface GgufPlan {
  metadata: Map<string, GgufMetadataValue>
  tensors: (GgufTensorPlan & { source: GgufSource; storage: GgufStorage })[]
  /** Bytes of all tensors. */
  bytes: number
  /** Longest context that the file is good for, in tokens; it names it too. */
  contextLength: number
}

export interface WrittenGguf extends GgufPlan {
  /** Digest of the file. */
  sha256: string
}

/**
 * Everything of the file but its weights.
 *
 * @throws EngineError `unsupported` for a family, variant or tokenizer that GGUF has no place for.
 */
export function planGguf({ model, name, type, ...tokenizer }: GgufExportOptions): GgufPlan {
  const { architecture, contextLength, metadata: fields, tensors: sources } = ggufModel(model)
  const metadata = new Map<string, GgufMetadataValue>([
    ['general.architecture', { text: architecture }],
    ['general.type', { text: 'model' }],
    ['general.name', { text: ggufName(name ?? basename(model.folder), model.folder) }],
    ...description(architecture, contextLength, model.config.maxPositions),
    ['general.file_type', { u32: FILE_TYPE_NUMBERS[type] }],
    ['general.quantization_version', { u32: 2 }],
    ...fields,
    ...ggufTokenizer(model.folder, model.config.vocabSize, tokenizer),
  ])
  const tensors = sources.map((source) => {
    const storage = storageOf(source, type, model.config.layers)
    const byteLength = storedBytes(source.shape, storage)
    return { name: source.name, shape: source.shape, ggmlType: storage.ggmlType, byteLength, source, storage }
  })
  const bytes = tensors.reduce((sum, { byteLength }) => sum + byteLength, 0)
  return { metadata, tensors, bytes, contextLength }
}

function description(architecture: string, context: number, whole: number): [string, GgufMetadataValue][] {
  if (context === whole) return []
  const text = `Its context is the ${context} tokens of its windows, since llama.cpp's ${architecture} has none; the model's own is ${whole}.`
  return [['general.description', { text }]]
}

/**
 * Checks that matrices which are rounded to the grid of a type have a place in the file.
 *
 * @throws EngineError `unsupported` naming one whose rows are no whole blocks.
 */
export function checkRoundable(plan: GgufPlan, type: GgufFileType): void {
  if (!isGgufIntType(type)) return
  const odd = plan.tensors.find(({ source: { role, layer }, storage }) => {
    return layer !== undefined && role !== 'vector' && !('type' in storage)
  })
  if (!odd) return
  const message = `${odd.name} is ${odd.shape.join(' × ')}; only rows that are multiples of 32 are rounded for GGUF: choose method rtn`
  throw new EngineError('unsupported', 'gguf_size_unsupported', message, { param: 'method' })
}

/** llama.cpp's name for a file: `model-Q4_0.gguf`. */
export function ggufFileName(type: GgufFileType): string {
  return `model-${type}.gguf`
}

/**
 * Writes a model as one GGUF file into `folder`, a few rows at a time.
 *
 * @throws what planGguf throws; EngineError `invalid` naming a tensor that does not fit float16; `cancelled`.
 */
export async function writeGguf(folder: string, options: GgufExportOptions): Promise<WrittenGguf> {
  const { type, onProgress, signal } = options
  const plan = planGguf(options)
  const writer = await GgufWriter.create(join(folder, ggufFileName(type)), plan.metadata, plan.tensors)
  const buffers = { read: new Scratch(), values: new Scratch(), packed: new Scratch() }
  let done = 0
  try {
    for (const { name, source, storage } of plan.tensors) {
      for (const bytes of packedChunks(options, name, source, storage, buffers)) {
        checkCancelled(signal)
        await writer.append(name, bytes)
        done += bytes.length
        onProgress?.({ done, total: plan.bytes, message: name })
        await setImmediate() // lets a cancellation in
      }
    }
    return { ...plan, sha256: await writer.finish() }
  } catch (error) {
    await writer.abort()
    throw error
  }
}

/** A tensor's bytes in the file, part by part. */
function* packedChunks(
  options: GgufExportOptions,
  name: string,
  source: GgufSource,
  storage: GgufStorage,
  buffers: Buffers,
): Generator<Uint8Array> {
  if (source.from instanceof Float32Array) return yield pack(name, source.from, storage, buffers)
  for (const tensor of source.from) {
    const blocks = options.quantized?.matrix(tensor.name)?.blocks
    const packed = options.quantized?.packed(tensor.name)
    const changed = options.quantized?.changed(tensor.name)
    if (packed) yield inFileOrder(packed.bytes, tensor.shape[0]!, source)
    else if (blocks) yield packRounded(name, blocks, source, storage)
    else if (changed) yield pack(name, plus(changed.slice(), source.offset), storage, buffers)
    else {
      const chunks = rowChunks(options.model.weights, tensor, source, buffers)
      for (const values of chunks) yield pack(name, values, storage, buffers)
    }
  }
}

function packRounded(name: string, blocks: IntBlocks, source: GgufSource, storage: GgufStorage): Uint8Array {
  if (!('type' in storage) || !isGgufIntType(storage.type)) {
    throw new Error(`${name} is rounded, but the file has no place for its blocks`)
  }
  return inFileOrder(packGgufBlocks(blocks, storage.type), blocks.rows, source)
}

/** Packed rows in the order of the file. */
function inFileOrder(packed: Uint8Array, rows: number, { interleavedRows = 1 }: GgufSource): Uint8Array {
  return interleavedRows === 1 ? packed : interleaveHalves(packed, interleavedRows, packed.length / rows)
}

function pack(name: string, values: Float32Array, storage: GgufStorage, { packed }: Buffers): Uint8Array {
  if ('type' in storage) {
    const bytes = packed.bytes((values.length / storage.blockSize) * storage.blockBytes)
    storage.quantize(values, bytes)
    return bytes
  }
  checkRange(name, values, storage.dtype)
  return encodeFloat32(values, storage.dtype)
}

/**
 * A tensor's values in file order, some whole rows (and whole heads, where rows change places) at a time; the next ones take
 * the place of the last.
 */
function* rowChunks(
  weights: WeightFolder,
  { name, shape }: CheckpointTensor,
  { interleavedRows = 1, offset = 0 }: GgufSource,
  { read, values: widened }: Buffers,
): Generator<Float32Array> {
  const dtype = weights.weightDType(name)
  const { byteLength } = weights.expectShape(name, shape)
  const rows = shape[0]!
  const columns = shape[1] ?? 1
  const rowBytes = byteLength / rows
  const atOnce = Math.max(1, Math.floor(CHUNK_VALUES / columns / interleavedRows)) * interleavedRows
  for (let row = 0; row < rows; row += atOnce) {
    const count = Math.min(atOnce, rows - row)
    const bytes = read.bytes(count * rowBytes)
    weights.readPartSync(name, row * rowBytes, count * rowBytes, bytes)
    const values = plus(decodeFloat32(bytes, dtype, widened.floats(count * columns)), offset)
    yield interleavedRows === 1 ? values : interleaveHalves(values, interleavedRows, columns)
  }
}

/** Adds to every value, in place. */
function plus(values: Float32Array, offset = 0): Float32Array {
  if (offset !== 0) for (let i = 0; i < values.length; i++) values[i]! += offset
  return values
}

/**
 * Interleaves the two rotary halves of each head, as llama.cpp's llama wants them: row h·d + 2·i + half of the file is row
 * h·d + half·d/2 + i of the checkpoint. engine/gguf/import.ts parts them again.
 */
export function interleaveHalves<Rows extends Float32Array | Uint8Array>(
  values: Rows,
  headRows: number,
  columns: number,
): Rows {
  const interleaved = values.slice() as Rows
  const half = headRows / 2
  for (let from = 0; from * columns < values.length; from++) {
    const inHead = from % headRows
    const to = from - inHead + (inHead % half) * 2 + Math.floor(inHead / half)
    interleaved.set(values.subarray(from * columns, (from + 1) * columns), to * columns)
  }
  return interleaved
}

/** How a method with data rounds matrices for a file of a type. */
export function ggufRounding(options: Pick<GgufExportOptions, 'model' | 'type'>) {
  const { type } = options
  if (isGgufIntType(type)) return GGUF_GRIDS[type]
  return { ...SUPER_GRIDS.Q4_K, blockTypes: blockTypesOf(planGguf(options)) }
}

/** The block type of each matrix, by the path of its module in the checkpoint; not of those kept at 16 bits. */
function blockTypesOf({ tensors }: GgufPlan): Map<string, GgufBlockType> {
  const types = new Map<string, GgufBlockType>()
  for (const { source, storage } of tensors) {
    if (!('type' in storage) || source.from instanceof Float32Array) continue
    for (const { name } of source.from) types.set(name.replace(/\.weight$/, ''), storage.type)
  }
  return types
}
