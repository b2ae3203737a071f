import { copyFileSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import { ADAPTER_FILES, readAdapter } from '../adapter/peft.ts'
import { EngineError } from '../errors.ts'
import { commitFolder } from '../weights/atomic-folder.ts'
import type { WeightDType } from '../weights/dtypes.ts'
import { writeAdapterGguf } from './gguf-adapter.ts'
import { type Manifest, readManifest, writeManifest } from './manifest.ts'

export interface AdapterExport {
  /** The base that the adapter lies over. */
  modelFolder: string
  adapterFolder: string
  /** Must not exist, or be empty. */
  outputFolder: string
  /** PEFT's files as they are, or llama.cpp's one file. */
  format: 'adapter' | 'adapter-gguf'
  /** Of the matrices in a GGUF. */
  dtype: WeightDType
  signal?: AbortSignal
}

/** Written beside them where a run has one. */
const OPTIONAL = ['README.md']

/**
 * Exports an adapter alone. The folder appears whole or not at all.
 *
 * @throws EngineError `unsupported` for adapters that llama.cpp cannot hold, and what readAdapter throws.
 */
export async function exportAdapter(options: AdapterExport): Promise<Manifest> {
  const { adapterFolder, outputFolder, format, dtype, signal } = options
  readAdapter(adapterFolder)
  await commitFolder(
    outputFolder,
    async (partial) => {
      const digests = new Map<string, string>()
      if (format === 'adapter-gguf') {
        const { name, sha256 } = await writeAdapterGguf(partial, options)
        digests.set(name, sha256)
      } else copyFiles(adapterFolder, partial)
      await writeManifest(partial, { format, dtype }, signal, digests)
    },
    signal,
  )
  return readManifest(outputFolder)
}

function copyFiles(from: string, to: string): void {
  for (const name of [...ADAPTER_FILES, ...OPTIONAL]) {
    if (existsSync(join(from, name))) copyFileSync(join(from, name), join(to, name))
    else if (ADAPTER_FILES.includes(name)) {
      throw new EngineError('not_found', 'adapter_missing', `${from} has no ${name}`)
    }
  }
}
