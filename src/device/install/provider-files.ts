import { createHash } from 'node:crypto'
import { createReadStream, existsSync, readFileSync, statSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { Binding } from './binding.ts'
import { KNOWN_PROVIDERS, PROVIDER_FILES, type ProviderFile } from './known-providers.ts'

/** What an installation notes beside the files, so that it can be undone. */
export const MANIFEST = 'anneal-cuda.json'

const manifestSchema = z.object({
  version: z.string(),
  source: z.string(),
  sha256: z.record(z.string(), z.string()),
})
export type InstallManifest = z.output<typeof manifestSchema>

/** The CUDA library beside the binding, as it lies there. */
export interface InstalledProvider {
  /** Of PROVIDER_FILES, those that are there. */
  present: ProviderFile[]
  /** The versions of onnxruntime that the CUDA library was built for; one, if it is what it seems. */
  versions: string[]
  /** What `anneal device install` noted; undefined for files that something else has put there. */
  manifest: InstallManifest | undefined
}

/** Looks at what lies beside the binding. */
export async function inspectProvider({ folder }: Pick<Binding, 'folder'>): Promise<InstalledProvider> {
  const present = PROVIDER_FILES.filter((name) => existsSync(join(folder, name)))
  const library = join(folder, 'libonnxruntime_providers_cuda.so')
  const versions = existsSync(library) ? await knownVersions(library) : []
  return { present, versions, manifest: readManifest(folder) }
}

/** Versions of libraries that were looked at, by path, size and time: reading all of one takes a while. */
const looked = new Map<string, Promise<string[]>>()

function knownVersions(file: string): Promise<string[]> {
  const { size, mtimeMs } = statSync(file)
  const key = `${file} ${size} ${mtimeMs}`
  const versions = looked.get(key) ?? libraryVersions(file)
  looked.set(key, versions)
  return versions
}

function readManifest(folder: string): InstallManifest | undefined {
  const file = join(folder, MANIFEST)
  if (!existsSync(file)) return undefined
  try {
    return manifestSchema.parse(JSON.parse(readFileSync(file, 'utf8')))
  } catch {
    return undefined
  }
}

export async function sha256Of(file: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer)
  return hash.digest('hex')
}

/** Where known digests say a file comes from; undefined for an unknown one. */
export function originOf(version: string, name: ProviderFile, sha256: string): string | undefined {
  return KNOWN_PROVIDERS[version]?.sha256[name][sha256]
}

const VERSION = /\0(1\.\d{1,3}\.\d{1,3})\0/g
const CHUNK_BYTES = 4 << 20
/** Longer than any version with its ends, so that none is cut in two. */
const OVERLAP = 16

/**
 * The versions of onnxruntime that stand in a library as texts of their own. The runtime itself takes a library of another
 * version without a word, and what follows is undefined, so this has to be looked at here.
 */
export async function libraryVersions(file: string): Promise<string[]> {
  const found = new Set<string>()
  const handle = await open(file)
  try {
    const chunk = Buffer.alloc(CHUNK_BYTES)
    for (let at = 0; ; at += CHUNK_BYTES - OVERLAP) {
      const { bytesRead } = await handle.read(chunk, 0, CHUNK_BYTES, at)
      // each ends with the zero that the next may begin with
      const text = chunk.toString('latin1', 0, bytesRead).replaceAll('\0', '\0\0')
      for (const [, version] of text.matchAll(VERSION)) found.add(version!)
      if (bytesRead < CHUNK_BYTES) return [...found].sort()
    }
  } finally {
    await handle.close()
  }
}
