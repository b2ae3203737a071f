import { mkdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import { checkFreeSpace, publishFolder } from '../../engine/weights/atomic-folder.ts'
import { downloadFile } from '../download/download-file.ts'
import { newBaseFolder } from '../models/bases.ts'
import { HubClient, type HubSettings, hubError } from './client.ts'
import { claimPartialFolder } from './partial-folder.ts'
import { checkNoRemoteCode, MAY_ASK_FOR_CODE, selectFiles } from './select.ts'

export interface PullOptions {
  /** ORG/NAME or NAME, with an optional @revision. */
  word: string
  hub: HubSettings
  /** The configured models folders; the first one gets the new base model. */
  directories: readonly string[]
  /** Id of the base model; the repository's name by default. */
  name?: string
  onProgress?: (progress: { done: number; total: number; message: string }) => void
  signal?: AbortSignal
}

export interface Pulled {
  name: string
  folder: string
  repository: string
  commit: string
  bytes: number
}

/**
 * Fetches a base model from the configured hub: safetensors and the small files beside them, each checked against its
 * size and digest. The folder appears whole; what was downloaded when it breaks off stays hidden beside it, and the same
 * pull goes on from there.
 *
 * @throws EngineError `refused` for pickles and for models that bring code, `conflict` for a name that is taken, `too_large`
 *   when the disk is too small (checked first), and what the hub's client throws.
 */
export async function pullModel(options: PullOptions): Promise<Pulled> {
  const { signal, onProgress } = options
  const { repository, revision } = readRepository(options.word)
  const name = options.name ?? basename(repository)
  const folder = newBaseFolder(options.directories, name)
  const client = new HubClient(options.hub)
  const commit = await client.commit(repository, revision, signal)
  const files = selectFiles(repository, await client.files(repository, commit, signal))
  const total = files.reduce((sum, file) => sum + file.size, 0)
  mkdirSync(dirname(folder), { recursive: true })
  const partial = claimPartialFolder(folder, commit)
  try {
    checkFreeSpace(dirname(folder), Math.max(0, total - partial.bytes()))
    let done = 0
    // Small files first: they say whether the model asks for code before its weights are fetched.
    for (const file of files) {
      const onBytes = (bytes: number) => {
        done += bytes
        onProgress?.({ done, total, message: file.path })
      }
      const open = (start: number, ending?: AbortSignal) =>
        client.open(repository, commit, file.path, start, ending)
      await downloadFile({ file, open }, partial.folder, onBytes, signal)
      if (MAY_ASK_FOR_CODE.includes(file.path)) {
        checkNoRemoteCode(repository, file.path, readJson(join(partial.folder, file.path)))
      }
    }
    publishFolder(partial.folder, folder)
    return { name, folder, repository, commit, bytes: total }
  } catch (error) {
    if (error instanceof EngineError && error.kind === 'refused') partial.remove()
    throw error
  } finally {
    partial.release()
  }
}

const PART = '[A-Za-z0-9][A-Za-z0-9._-]{0,95}'
const REPOSITORY = new RegExp(`^(${PART}(?:/${PART})?)(?:@([A-Za-z0-9][A-Za-z0-9._/-]{0,99}))?$`)

/** @throws EngineError `invalid` for a word that names no repository. */
export function readRepository(word: string): { repository: string; revision: string } {
  const [, repository, revision = 'main'] = REPOSITORY.exec(word) ?? []
  if (repository !== undefined && !word.includes('..')) return { repository, revision }
  throw new EngineError(
    'invalid',
    'invalid_repository',
    `${JSON.stringify(word.slice(0, 120))} names no repository; write ORG/NAME or ORG/NAME@REVISION.`,
    { param: 'repository' },
  )
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    throw hubError(`its ${basename(path)} is not JSON`)
  }
}
