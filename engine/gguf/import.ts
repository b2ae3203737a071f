import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { elementCount } from '../tensor.ts'
import {
  checkCancelled,
  checkFreeSpace,
  checkVacant,
  commitFolder,
  writeFileDurably,
} from '../weights/atomic-folder.ts'
import { checkRange, encodeFloat32, type WeightDType } from '../weights/dtypes.ts'
import { CONFIG_FILE } from '../weights/model-files.ts'
import type { ByteProgress } from '../weights/model-writer.ts'
import { type PlannedTensor, SAFETENSORS_NAMES, SafetensorsWriter } from '../weights/safetensors.ts'
import { tensorBytes } from '../weights/safetensors-header.ts'
import { DEFAULT_SHARD_BYTES, planShards, shardFileName, writeIndex } from '../weights/shards.ts'
import { type MappedTensor, mapModel } from './architecture.ts'
import { GgufFile } from './file.ts'
import { tokenizerFiles } from './tokenizer.ts'

export interface GgufImportOptions {
  /** The GGUF file. */
  file: string
  /** Must not exist, or be empty. */
  outputFolder: string
  /** Of the weights; by default what the file's matrices have, and bfloat16 where they are quantized. */
  dtype?: WeightDType
  /** Most bytes of tensors in one file; 5 GB by default. */
  shardBytes?: number
  onProgress?: (progress: ByteProgress) => void
  signal?: AbortSignal
}

/** Float32 bytes that are in memory at a time, unless a single head or row is larger. */
const CHUNK_BYTES = 16 << 20

/**
 * Writes the model in a GGUF file as a Hugging Face folder: config.json, tokenizer files with the chat template, and
 * safetensors. Quantized weights become the values that they stand for. The folder appears whole or not at all.
 *
 * @returns the bytes of the weights.
 * @throws EngineError `invalid` for a file that is malformed or doesn't hold what its metadata says, `unsupported` naming
 *   an architecture, tensor type or tokenizer that is not read, `too_large`, `conflict`, `cancelled`.
 */
export async function importGguf(options: GgufImportOptions): Promise<number> {
  const { outputFolder, signal } = options
  checkCancelled(signal)
  checkVacant(outputFolder)
  const file = GgufFile.open(options.file)
  try {
    const { tensors, dtype, texts } = planImport(file, options.dtype)
    const shards = planShards(tensors, options.shardBytes ?? DEFAULT_SHARD_BYTES)
    const bytes = shards.flat().reduce((sum, tensor) => sum + tensor.byteLength, 0)
    const needed = bytes + texts.reduce((sum, [, text]) => sum + Buffer.byteLength(text), 1_000_000)
    checkFreeSpace(outputFolder, needed)
    await commitFolder(
      outputFolder,
      async (partial) => {
        await writeShards(file, shards, partial, bytes, dtype, options)
        for (const [name, text] of texts) writeFileDurably(join(partial, name), text)
      },
      signal,
      needed,
    )
    return bytes
  } finally {
    file.close()
  }
}

/**
 * Reads all of a GGUF file but its weights, as importGguf does first.
 *
 * @returns the bytes of the weights that an import would write.
 * @throws what importGguf throws of the file.
 */
export function checkGguf(path: string, dtype?: WeightDType): { bytes: number } {
  const file = GgufFile.open(path)
  try {
    const { tensors } = planImport(file, dtype)
    return { bytes: tensors.reduce((sum, tensor) => sum + tensor.byteLength, 0) }
  } finally {
    file.close()
  }
}

interface ImportPlan {
  tensors: OutputTensor[]
  dtype: WeightDType
  /** The files beside the weights, by name. */
  texts: [name: string, text: string][]
}

function planImport(file: GgufFile, wanted: WeightDType | undefined): ImportPlan {
  const { config, tensors } = mapModel(file.metadata, file.tensors, (tensor) =>
    file.readValues(tensor, 0, elementCount(tensor.shape)),
  )
  const dtype = wanted ?? dtypeOf(tensors)
  const files = tokenizerFiles(file.metadata)
  const { bos_token_id, eos_token_id, pad_token_id } = files['generation_config.json']
  const json = {
    ...files,
    [CONFIG_FILE]: {
      ...config,
      bos_token_id,
      eos_token_id,
      pad_token_id: pad_token_id ?? null,
      torch_dtype: dtype,
    },
  }
  return {
    tensors: tensors.map((tensor) => plan(tensor, dtype)),
    dtype,
    texts: Object.entries(json).map(([name, value]) => [name, withFractions(JSON.stringify(value, null, 2))]),
  }
}

/** transformers takes no whole number for fields of config.json that are fractions. */
function withFractions(text: string): string {
  return `${text.replace(/^( {2}"(?:attn|final)_logit_softcapping": \d+)(,?)$/gm, '$1.0$2')}\n`
}

interface OutputTensor extends PlannedTensor, MappedTensor {
  byteLength: number
}

function plan(tensor: MappedTensor, dtype: WeightDType): OutputTensor {
  const written = SAFETENSORS_NAMES[dtype]
  return { ...tensor, dtype: written, byteLength: tensorBytes(written, tensor.shape)! }
}

/** Norms, biases and routers are float32 in every file, so only the other matrices tell. */
function dtypeOf(tensors: readonly MappedTensor[]): WeightDType {
  const types = new Set(tensors.filter(({ role }) => role !== 'vector').map(({ source }) => source.type.name))
  if (types.size > 1) return 'bfloat16'
  return types.has('F32') ? 'float32' : types.has('F16') ? 'float16' : 'bfloat16'
}

async function writeShards(
  file: GgufFile,
  shards: readonly OutputTensor[][],
  folder: string,
  total: number,
  dtype: WeightDType,
  { onProgress, signal }: GgufImportOptions,
): Promise<void> {
  let done = 0
  for (const [shard, tensors] of shards.entries()) {
    const writer = new SafetensorsWriter(join(folder, shardFileName(shard, shards.length)), tensors)
    try {
      for (const tensor of tensors) {
        for (const values of chunksOf(file, tensor)) {
          checkCancelled(signal)
          checkRange(tensor.name, values, dtype, {
            mustBeFinite: `${file.path} holds numbers that are not finite`,
          })
          const bytes = encodeFloat32(values, dtype)
          writer.append(tensor.name, bytes)
          done += bytes.length
          onProgress?.({ done, total, message: tensor.name })
          await setImmediate() // lets a cancellation in
        }
      }
      writer.finish()
    } catch (error) {
      writer.abort()
      throw error
    }
  }
  writeIndex(folder, shards, total)
}

/** A tensor's values in order, a few whole rows (and whole heads, where their rows change places) at a time. */
function* chunksOf(
  file: GgufFile,
  { source, start, shape, interleavedRows = 1, offset }: OutputTensor,
): Generator<Float32Array> {
  const rows = shape[0]!
  const columns = elementCount(shape.slice(1))
  // A vector of a quantized type would be blocks across rows; the header check lets only whole rows be blocks.
  const step = shape.length === 1 ? Math.max(interleavedRows, source.type.blockSize) : interleavedRows
  const rowsAtOnce = Math.max(step, Math.floor(CHUNK_BYTES / 4 / columns / step) * step)
  for (let row = 0; row < rows; row += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, rows - row)
    const values = file.readValues(source, start + row * columns, count * columns)
    if (offset !== 0) for (let i = 0; i < values.length; i++) values[i]! -= offset
    yield interleavedRows === 1 ? values : partHalves(values, interleavedRows, columns)
  }
}

/**
 * Parts the two rotary halves of each head, which GGUF's llama keeps interleaved (convert_hf_to_gguf.py, permute):
 * row h·d + half·d/2 + i of Hugging Face is row h·d + 2·i + half of the file.
 */
export function partHalves(values: Float32Array, headRows: number, columns: number): Float32Array {
  const parted = new Float32Array(values.length)
  const half = headRows / 2
  for (let to = 0; to * columns < values.length; to++) {
    const inHead = to % headRows
    const from = to - inHead + (inHead % half) * 2 + Math.floor(inHead / half)
    parted.set(values.subarray(from * columns, (from + 1) * columns), to * columns)
  }
  return parted
}
