import { randomBytes } from 'node:crypto'
import {
  accessSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs'
import { join } from 'node:path'
import { EngineError } from '../../../engine/errors.ts'
import {
  checkFreeSpace,
  diskError,
  syncFolder,
  syncTree,
  writeFileDurably,
} from '../../../engine/weights/atomic-folder.ts'
import { downloadFile } from '../../download/download-file.ts'
import { type Binding, checkCudaPlatform } from './binding.ts'
import { KNOWN_PROVIDERS, PROVIDER_FILES, type ProviderFile } from './known-providers.ts'
import {
  type InstallManifest,
  inspectProvider,
  libraryVersions,
  MANIFEST,
  originOf,
  sha256Of,
} from './provider-files.ts'
import { findSource, type ProviderSource, type SourceOptions } from './source.ts'
import { extractFromTarball } from './tarball.ts'
import { extractFromZip } from './zip.ts'

export interface InstallOptions extends SourceOptions {
  binding: Binding
  onProgress?: (progress: { done: number; total: number; message: string }) => void
}

/** What an archive's two libraries take at most, unpacked, beyond the archive itself. */
const UNPACKED_BYTES = 300e6
const DOWNLOADS = '.anneal-cuda-download'
const UNPACKED = /^\.anneal-cuda-[0-9a-f]{8}$/

/**
 * Puts onnxruntime's CUDA library beside the binding: found, downloaded (a broken download goes on), unpacked, checked
 * for its version and its SHA-256, made durable, and only then given its name. Replaces an earlier installation of its own.
 *
 * @throws EngineError `unsupported` for another platform, `conflict` for files that something else has put there, `invalid`
 *   for another version or an unknown digest, and what finding and downloading throw. Nothing is changed then.
 */
export async function installCuda(options: InstallOptions): Promise<InstallManifest> {
  const { binding, signal, sha256 } = options
  checkCudaPlatform(binding)
  checkWritable(binding.folder)
  checkDigestForm(sha256)
  await checkForeign(binding)
  const source = await findSource(binding.version, options)
  const unpacked = join(binding.folder, `.anneal-cuda-${randomBytes(4).toString('hex')}`)
  try {
    const archive = await fetchArchive(source, options)
    checkFreeSpace(binding.folder, UNPACKED_BYTES)
    mkdirSync(unpacked)
    if (archive) await checkArchive(archive, sha256)
    await unpack(archive, source, unpacked, signal)
    const digests = await checkLibraries(unpacked, source, binding, sha256)
    const manifest = { version: binding.version, source: source.name, sha256: digests }
    publish(unpacked, binding.folder, manifest)
    rmSync(join(binding.folder, DOWNLOADS), { recursive: true, force: true })
    return manifest
  } catch (error) {
    throw diskError(error, binding.folder)
  } finally {
    rmSync(unpacked, { recursive: true, force: true })
  }
}

/**
 * Takes away what installCuda has put there, the rest of a broken download included; returns whether there was anything.
 * @throws EngineError `conflict` for files that something else has put there.
 */
export async function removeCuda(binding: Binding): Promise<boolean> {
  await checkForeign(binding)
  const left = readdirSync(binding.folder).filter((name) => name === DOWNLOADS || UNPACKED.test(name))
  const files = [...PROVIDER_FILES, MANIFEST].filter((name) => existsSync(join(binding.folder, name)))
  if (left.length + files.length === 0) return false
  checkWritable(binding.folder)
  // The manifest goes last: what an interruption leaves is still known as ours.
  for (const name of [...left, ...files]) rmSync(join(binding.folder, name), { recursive: true })
  return true
}

function checkWritable(folder: string): void {
  try {
    accessSync(folder, constants.W_OK)
  } catch (cause) {
    const message = `${folder} cannot be written. Run the command as the user who has installed Anneal.`
    throw new EngineError('refused', 'binding_not_writable', message, { cause })
  }
}

function checkDigestForm(sha256: string | undefined): void {
  if (sha256 === undefined || /^[0-9a-f]{64}$/.test(sha256)) return
  const message = `--sha256 is ${JSON.stringify(sha256)}; it must be 64 lowercase hexadecimal digits.`
  throw new EngineError('invalid', 'invalid_digest', message, { param: 'sha256' })
}

async function checkForeign(binding: Binding): Promise<void> {
  const { present, manifest } = await inspectProvider(binding)
  if (present.length === 0 || manifest) return
  const message =
    `${present.join(' and ')} in ${binding.folder} came from something else (onnxruntime-node's own installation, say), ` +
    'so they are left alone. Remove them first to have Anneal install its own.'
  throw new EngineError('conflict', 'provider_exists', message)
}

/** The archive as a local file; undefined for a folder, which needs none. */
async function fetchArchive(
  { content }: ProviderSource,
  { binding, onProgress, signal }: InstallOptions,
): Promise<string | undefined> {
  if (content.kind === 'folder') return undefined
  if (content.kind === 'file') return content.file
  const { file } = content.source
  const downloads = join(binding.folder, DOWNLOADS)
  mkdirSync(downloads, { recursive: true })
  for (const other of readdirSync(downloads))
    if (!other.startsWith(file.path)) rmSync(join(downloads, other), { recursive: true })
  const archive = join(downloads, file.path)
  if (file.digest === undefined) rmSync(archive, { force: true }) // it may be another's content
  checkFreeSpace(downloads, file.size)
  let done = 0
  const onBytes = (bytes: number) => {
    done += bytes
    onProgress?.({ done, total: file.size, message: file.path })
  }
  await downloadFile(content.source, downloads, onBytes, signal)
  return archive
}

async function checkArchive(archive: string, sha256: string | undefined): Promise<void> {
  if (sha256 === undefined) return
  const found = await sha256Of(archive)
  if (found !== sha256) throw wrongDigest(archive, found, sha256)
}

async function unpack(
  archive: string | undefined,
  { content }: ProviderSource,
  target: string,
  signal?: AbortSignal,
): Promise<void> {
  const wanted = new Map(PROVIDER_FILES.map((name) => [name as string, join(target, name)]))
  if (content.kind === 'folder') {
    for (const [name, to] of wanted) {
      const from = join(content.folder, name)
      if (!existsSync(from)) {
        const message = `${content.folder} holds no ${name}; both ${PROVIDER_FILES.join(' and ')} are needed.`
        throw new EngineError('invalid', 'archive_without_library', message, { param: 'from' })
      }
      copyFileSync(from, to)
    }
    return
  }
  const isTarball = /\.(tgz|tar\.gz)$/.test(archive!)
  await (isTarball ? extractFromTarball : extractFromZip)(archive!, wanted, signal)
}

/** Checks version and digests; returns the digests by file. */
async function checkLibraries(
  folder: string,
  source: ProviderSource,
  binding: Binding,
  sha256: string | undefined,
): Promise<Record<string, string>> {
  const library = join(folder, 'libonnxruntime_providers_cuda.so')
  const versions = await libraryVersions(library)
  if (!versions.includes(binding.version)) throw wrongVersion(source, versions, binding.version)
  const digests: Record<string, string> = {}
  for (const name of PROVIDER_FILES) digests[name] = await sha256Of(join(folder, name))
  if (source.content.kind === 'folder' && sha256 !== undefined) {
    const found = digests['libonnxruntime_providers_cuda.so']!
    if (found !== sha256) throw wrongDigest(library, found, sha256)
  }
  const unknown = PROVIDER_FILES.filter(
    (name) => originOf(binding.version, name, digests[name]!) === undefined,
  )
  // For a version that is not known yet, a package index's own digest is what pip would go by.
  const isVouched = source.isVouched && KNOWN_PROVIDERS[binding.version] === undefined
  if (unknown.length === 0 || sha256 !== undefined || isVouched) return digests
  throw unknownDigest(unknown[0]!, digests[unknown[0]!]!, source, binding)
}

function publish(unpacked: string, folder: string, manifest: InstallManifest): void {
  syncTree(unpacked)
  // First the manifest, so that what an interruption leaves is known as ours, and the next attempt replaces it.
  writeFileDurably(join(folder, MANIFEST), `${JSON.stringify(manifest, null, 2)}\n`)
  for (const name of PROVIDER_FILES) renameSync(join(unpacked, name), join(folder, name))
  syncFolder(folder)
}

function wrongVersion(source: ProviderSource, versions: string[], version: string): EngineError {
  const of = versions.length > 0 ? `is of onnxruntime ${versions.join(', ')}` : 'does not say its version'
  const message =
    `The CUDA library of ${source.name} ${of}; the installed onnxruntime-node is ${version} and takes only its own. ` +
    'A library of another version would be loaded without a word, and compute nonsense.'
  return new EngineError('invalid', 'provider_version', message, { param: 'from' })
}

function wrongDigest(file: string, found: string, expected: string): EngineError {
  const message = `${file} has the SHA-256 ${found}, but --sha256 says ${expected}. Nothing was installed.`
  return new EngineError('invalid', 'digest_wrong', message, { param: 'sha256' })
}

function unknownDigest(
  name: ProviderFile,
  found: string,
  source: ProviderSource,
  { version }: Binding,
): EngineError {
  const of = source.content.kind === 'folder' ? 'the CUDA library' : 'the archive'
  const message =
    `${name} of ${source.name} has the SHA-256 ${found}, which is none of the builds that are known for ${version}. ` +
    `If you trust it, give the SHA-256 of ${of} as its vendor publishes it: --sha256 HEX.`
  return new EngineError('invalid', 'unknown_digest', message, { param: 'sha256' })
}
