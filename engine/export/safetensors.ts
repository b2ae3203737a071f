import type { TemplateChoice } from '../text/template-choice.ts'
import type { WeightDType } from '../weights/dtypes.ts'
import { type ByteProgress, writeModel } from '../weights/model-writer.ts'
import { adoptTemplate } from './carried-template.ts'
import { type Manifest, readManifest, writeManifest } from './manifest.ts'

export interface ExportOptions {
  /** A base or merged model in Hugging Face's layout. */
  modelFolder: string
  /** The chat template that training used; undefined is the folder's own. */
  template?: string | TemplateChoice | undefined
  /** Must not exist, or be empty. */
  outputFolder: string
  dtype: WeightDType
  /** Most bytes of tensors in one file; 5 GB by default. */
  shardBytes?: number
  onProgress?: (progress: ByteProgress) => void
  signal?: AbortSignal
}

/**
 * Exports a model as safetensors of one dtype that transformers loads, with manifest.json and SHA256SUMS.
 *
 * @throws EngineError `invalid` with code weight_overflow naming a tensor that does not fit float16, and what writeModel
 *   throws.
 */
export async function exportSafetensors(options: ExportOptions): Promise<Manifest> {
  const { dtype, template, signal } = options
  await writeModel({
    ...options,
    digests: true,
    finish: async (partial, digests) => {
      adoptTemplate(partial, template)
      await writeManifest(partial, { format: 'safetensors', dtype }, signal, digests)
    },
  })
  return readManifest(options.outputFolder)
}
