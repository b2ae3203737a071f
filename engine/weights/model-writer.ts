import { statSync } from 'node:fs'
import { join } from 'node:path'
import { EngineError } from '../errors.ts'
import { checkCancelled, checkFreeSpace, checkVacant, commitFolder } from './atomic-folder.ts'
import { type Adjust, copyTensors, type OutputTensor } from './copy-tensors.ts'
import type { WeightDType } from './dtypes.ts'
import { carriedFiles, carryFiles, readModelConfig } from './model-files.ts'
import { SAFETENSORS_NAMES, WeightFolder } from './safetensors.ts'
import { tensorBytes } from './safetensors-header.ts'
import { layOutSafetensors } from './safetensors-writer.ts'
import { DEFAULT_SHARD_BYTES, planShards, shardFileName, writeIndex } from './shards.ts'
import { StreamBuffers, StreamedFile, type StreamOptions } from './streamed-file.ts'

export type { Adjust, RowAdjust } from './copy-tensors.ts'

/** How far a long job on files is. */
export interface ByteProgress {
  done: number
  total: number
  message?: string
}

export interface ModelWriteOptions extends StreamOptions {
  modelFolder: string
  /** Must not exist, or be empty. */
  outputFolder: string
  /** Every floating-point tensor is cast to it; without it each keeps its own. */
  dtype?: WeightDType
  /** By the tensor's name in the output. */
  adjust?: ReadonlyMap<string, Adjust>
  /** The names under which a tensor is written; its own alone when left out. */
  namesOf?: (tensor: string) => readonly string[]
  /** Most bytes of tensors in one file, unless a single tensor is larger. */
  shardBytes?: number
  /** Adds files to the folder before it appears; `digests` has the weight files' by name, where they were asked for. */
  finish?: (partial: string, digests: ReadonlyMap<string, string>) => Promise<void>
  onProgress?: (progress: ByteProgress) => void
  signal?: AbortSignal
}

/**
 * Writes a model folder anew, a few rows of a tensor at a time, as one file or as shards with an
 * index in Hugging Face's layout, and carries its config and tokenizer files over. The folder appears whole or not at all.
 *
 * @returns the bytes of the new weights.
 * @throws EngineError `refused` for a quantized model, `invalid` naming a tensor that doesn't fit its dtype, `too_large`
 *   when the disk is too small (checked first), `conflict`, `cancelled`, and what opening a model folder throws.
 */
export async function writeModel(options: ModelWriteOptions): Promise<number> {
  const { modelFolder, outputFolder, signal } = options
  checkCancelled(signal)
  checkVacant(outputFolder)
  checkNotQuantized(modelFolder)
  const source = WeightFolder.open(modelFolder)
  try {
    const shards = planShards(planTensors(source, options), options.shardBytes ?? DEFAULT_SHARD_BYTES)
    const bytes = shards.flat().reduce((sum, tensor) => sum + tensor.byteLength, 0)
    const needed = bytes + smallBytes(modelFolder, shards.flat().length)
    checkFreeSpace(outputFolder, needed)
    await commitFolder(
      outputFolder,
      async (partial) => {
        const digests = await writeShards(source, shards, partial, bytes, options)
        carryFiles(modelFolder, partial, options.dtype)
        await options.finish?.(partial, digests)
      },
      signal,
      needed,
    )
    return bytes
  } finally {
    source.close()
  }
}

function planTensors(
  source: WeightFolder,
  { dtype, namesOf = (name) => [name] }: ModelWriteOptions,
): OutputTensor[] {
  const inReadingOrder = [...source.entries.values()].sort((a, b) =>
    a.file === b.file ? a.offset - b.offset : a.file < b.file ? -1 : 1,
  )
  return inReadingOrder.flatMap(({ name: from, dtype: stored, shape, byteLength }): OutputTensor[] => {
    const names = namesOf(from)
    if (/^([IU]\d+|BOOL)$/.test(stored)) {
      return names.map((name) => ({ name, from, dtype: stored, shape, byteLength, cast: undefined }))
    }
    const own = source.weightDType(from)
    const cast = { from: own, to: dtype ?? own }
    const written = SAFETENSORS_NAMES[cast.to]
    return names.map((name) => {
      return { name, from, dtype: written, shape, byteLength: tensorBytes(written, shape)!, cast }
    })
  })
}

async function writeShards(
  source: WeightFolder,
  shards: readonly OutputTensor[][],
  folder: string,
  total: number,
  { adjust, onProgress, signal, ...streaming }: ModelWriteOptions,
): Promise<Map<string, string>> {
  const digests = new Map<string, string>()
  const layouts = shards.map((tensors) => layOutSafetensors(tensors))
  const buffers = new StreamBuffers(Math.max(...layouts.map(({ byteLength }) => byteLength)), streaming)
  let done = 0
  const onBytes = (bytes: number, tensor: string) => {
    done += bytes
    onProgress?.({ done, total, message: tensor })
  }
  try {
    for (const [shard, { header, places, byteLength }] of layouts.entries()) {
      const name = shardFileName(shard, shards.length)
      const file = new StreamedFile(join(folder, name), byteLength, buffers)
      try {
        await file.put(0, header)
        await copyTensors(source, file, shards[shard]!, places, adjust, onBytes, signal)
        const digest = await file.finish()
        if (digest !== undefined) digests.set(name, digest)
      } catch (error) {
        await file.abort()
        throw error
      }
    }
  } finally {
    await buffers.close()
  }
  writeIndex(folder, shards, total)
  return digests
}

function checkNotQuantized(modelFolder: string): void {
  const { quantization_config: quantization } = readModelConfig(modelFolder)
  if (quantization === undefined || quantization === null) return
  throw new EngineError(
    'refused',
    'base_quantized',
    `${modelFolder} is quantized (its config.json has a quantization_config); use the full-width model that it was made from`,
  )
}

/** Bytes of everything but the tensors, roughly and from above: carried files, headers, index, manifest. */
function smallBytes(modelFolder: string, tensors: number): number {
  const carried = carriedFiles(modelFolder).reduce(
    (sum, name) => sum + statSync(join(modelFolder, name)).size,
    0,
  )
  return carried + tensors * 1024 + 1_000_000
}
