import type { WeightDType } from '../weights/dtypes.ts'
import { type ByteProgress, writeModel } from '../weights/model-writer.ts'
import { type Manifest, readManifest, writeManifest } from './manifest.ts'

export interface ExportOptions {
  /** A base or merged model in Hugging Face's layout. */
  modelFolder: string
  /** Must not exist, or be empty. */
  outputFolder: string
  dtype: WeightDType
  /** Most bytes of tensors in one file; 5 GB by default. */
  shardBytes?: number
  onProgress?: (progress: ByteProgress) => void
  signal?: AbortSignal
}

/**
 * Exports a model as safetensors of one dtype that transformers loads, with manifest.json and SHA256SUMS. Progress counts
 * the weights twice: once for writing, once for hashing.
 *
 * @throws EngineError `invalid` with code weight_overflow naming a tensor that does not fit float16, and what writeModel
 *   throws.
 */
export async function exportSafetensors(options: ExportOptions): Promise<Manifest> {
  const { dtype, signal, onProgress } = options
  let written = 0
  let hashed = 0
  let total = 0
  const report = (message: string | undefined) =>
    onProgress?.({ done: written + Math.min(hashed, written), total: 2 * total, unit: 'bytes', message })
  await writeModel({
    ...options,
    onProgress: (progress) => {
      written = progress.done
      total = progress.total
      report(progress.message)
    },
    finish: async (partial) => {
      await writeManifest(
        partial,
        { format: 'safetensors', dtype },
        (bytes, file) => {
          hashed += bytes
          report(`SHA-256 of ${file}`)
        },
        signal,
      )
    },
  })
  return readManifest(options.outputFolder)
}
