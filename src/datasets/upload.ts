import { basename, extname } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import { convertRow } from './convert/index.ts'
import { RowError } from './convert/row-error.ts'
import { type DatasetAttributes, type RawEntry, readEntry } from './entry.ts'
import { FILE_TYPES, unsupportedType } from './files.ts'
import { readRows } from './readers/index.ts'
import type { DatasetRegistry, DatasetSource } from './registry.ts'
import { type StagedFile, stageFile } from './staging.ts'

/** A dataset's entry without its file, which the registry names. */
export type UploadEntry = Omit<RawEntry, 'file_name'>

/**
 * Streams an upload to a temporary file in the registry's upload directory. `extension` has its dot: `.jsonl`.
 *
 * @throws EngineError `payload_too_large`, `unsupported_file_type`; nothing stays behind then.
 */
export async function stageUpload(
  registry: DatasetRegistry,
  content: AsyncIterable<Uint8Array>,
  options: { extension: string; limitBytes: number },
): Promise<StagedFile> {
  const extension = options.extension.toLowerCase()
  if (FILE_TYPES[extension] === undefined) throw unsupportedType(`A file ending in "${options.extension}"`)
  return stageFile(content, {
    directory: registry.uploadDirectory,
    extension,
    limitBytes: options.limitBytes,
  })
}

/**
 * Checks a staged file's rows and registers it.
 *
 * @throws EngineError `malformed_row`, `no_valid_samples`, `dataset_exists`; the staged file is removed then.
 */
export async function registerUpload(
  registry: DatasetRegistry,
  staged: StagedFile,
  name: string,
  entry: UploadEntry,
): Promise<DatasetSource> {
  try {
    await registry.checkNew(name)
    await checkRows(staged.path, readEntry(name, { ...entry, file_name: name })).catch((error: unknown) => {
      throw withName(error, basename(staged.path), `${name}${extname(staged.path)}`)
    })
    return await registry.add(name, entry, staged.path)
  } catch (error) {
    await staged.discard()
    throw error
  }
}

/** Errors call the file what the sender does, not what it is called while it is checked. */
function withName(error: unknown, staged: string, given: string): unknown {
  if (!(error instanceof EngineError)) return error
  const { kind, code, message, param = 'file', cause } = error
  return new EngineError(kind, code, message.replaceAll(staged, given), { param, cause })
}

/** Every row must parse, and at least one must be usable for some stage. */
async function checkRows(path: string, attributes: DatasetAttributes): Promise<void> {
  const type = FILE_TYPES[extname(path)]
  if (type === undefined) throw unsupportedType(path)
  let usable = false
  let reason = 'it has no rows'
  for await (const { row, place } of readRows({ type, paths: [path] })) {
    if (usable) continue
    try {
      convertRow(row, attributes, attributes.ranking ? 'rm' : 'pt')
      usable = true
    } catch (error) {
      if (!(error instanceof RowError)) throw error
      reason = `${place}: ${error.message}`
    }
  }
  if (usable) return
  throw new EngineError(
    'invalid',
    'no_valid_samples',
    `Cannot find valid samples, check \`data/README.md\` for the data format. ${reason}.`,
    { param: 'file' },
  )
}
