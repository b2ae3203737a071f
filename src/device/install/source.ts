import { existsSync, statSync } from 'node:fs'
import { basename, resolve } from 'node:path'
import { EngineError } from '../../../engine/errors.ts'
import type { FileSource } from '../../download/download-file.ts'
import { findAtUrl, findNpmPackage, findWheel, shownUrl } from './registries.ts'
import { npmRegistry, pypiIndex } from './registry-config.ts'

/** Where the CUDA library is taken from. */
export interface ProviderSource {
  /** For messages and for the manifest. */
  name: string
  content:
    | { kind: 'folder'; folder: string }
    | { kind: 'file'; file: string }
    | { kind: 'download'; source: FileSource }
  /** Whether a package index that the operator trusts vouches for the archive by its digest. */
  isVouched: boolean
}

export interface SourceOptions {
  /** pypi, npm:NAME@VERSION, an address, a file or a folder. */
  from: string
  /** A registry other than the configured one. */
  index?: string | undefined
  /** SHA-256 of the archive, from its vendor. */
  sha256?: string | undefined
  signal?: AbortSignal | undefined
}

/**
 * Finds what `--from` names; for registries, the package of `version`.
 * @throws EngineError for a word that names nothing, and what the registries' clients throw.
 */
export async function findSource(
  version: string,
  { from, index, sha256, signal }: SourceOptions,
): Promise<ProviderSource> {
  if (from === 'pypi') {
    const source = await findWheel(version, index ?? pypiIndex(), signal)
    const isVouched = source.file.digest !== undefined
    return { name: source.file.path, content: { kind: 'download', source }, isVouched }
  }
  if (from === 'npm') throw noNpmPackage(version)
  if (from.startsWith('npm:')) {
    const word = from.slice('npm:'.length)
    const source = await findNpmPackage(word, index ?? (await npmRegistry(word)), signal)
    return { name: `npm ${word}`, content: { kind: 'download', source }, isVouched: false }
  }
  if (/^https?:\/\//.test(from) && URL.canParse(from)) {
    const source = await findAtUrl(from, sha256, signal)
    return { name: shownUrl(from), content: { kind: 'download', source }, isVouched: false }
  }
  return localSource(from)
}

function localSource(from: string): ProviderSource {
  const path = resolve(from)
  if (!existsSync(path)) {
    const message = `--from ${from}: there is no such file. It takes pypi, npm:NAME@VERSION, an address, a file or a folder.`
    throw new EngineError('invalid', 'source_not_found', message, { param: 'from' })
  }
  const content = statSync(path).isDirectory()
    ? ({ kind: 'folder', folder: path } as const)
    : ({ kind: 'file', file: path } as const)
  return { name: basename(path), content, isVouched: false }
}

function noNpmPackage(version: string): EngineError {
  const message =
    `No npm package is known that holds the CUDA library of onnxruntime ${version}: onnxruntime-node itself leaves it out. ` +
    'Take --from pypi, or name a package that has it: --from npm:NAME@VERSION.'
  return new EngineError('not_found', 'no_npm_package', message, { param: 'from' })
}
