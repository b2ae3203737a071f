import { statSync } from 'node:fs'
import { join } from 'node:path'
import { EngineError } from '../errors.ts'
import { checkCancelled, checkFreeSpace, checkVacant, commitFolder } from './atomic-folder.ts'
import { type Adjust, copyTensors, type OutputTensor } from './copy-tensors.ts'
import type { WeightDType } from './dtypes.ts'
import { FollowingHash } from './following-hash.ts'
import { carriedFiles, carryFiles, readModelConfig } from './model-files.ts'
import { SAFETENSORS_NAMES, SafetensorsWriter, WeightFolder } from './safetensors.ts'
import { tensorBytes } from './safetensors-header.ts'
import { DEFAULT_SHARD_BYTES, planShards, shardFileName, writeIndex } from './shards.ts'

export type { Adjust, RowAdjust } from './copy-tensors.ts'

/** How far a long job on files is. */
export interface ByteProgress {
  done: number
  total: number
  unit: 'bytes'
  message?: string
}

export interface ModelWriteOptions {
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
  /** Takes the SHA-256 digests of the weight files on the way, for `finish`. */
  digests?: boolean
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
  { adjust, onProgress, signal, digests: wantsDigests }: ModelWriteOptions,
): Promise<Map<string, string>> {
  const digests = new Map<string, string>()
  let done = 0
  for (const [shard, tensors] of shards.entries()) {
    const name = shardFileName(shard, shards.length)
    const writer = new SafetensorsWriter(join(folder, name), tensors)
    const hash = wantsDigests ? new FollowingHash(`${writer.path}.part`) : undefined
    try {
      const onBytes = (bytes: number, tensor: string) => {
        done += bytes
        hash?.advance(writer.writtenTo)
        onProgress?.({ done, total, unit: 'bytes', message: tensor })
      }
      await copyTensors(source, writer, tensors, adjust, onBytes, signal)
      writer.finish()
      if (hash) digests.set(name, await hash.digest(writer.byteLength))
    } catch (error) {
      await hash?.abort()
      writer.abort()
      throw error
    }
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
