import { readdir, realpath, stat } from 'node:fs/promises'
import { extname, isAbsolute, join, sep } from 'node:path'
import { EngineError } from '../../engine/errors.ts'

/** File extensions and the reader that each has. */
export const FILE_TYPES: Readonly<Record<string, FileType>> = {
  '.json': 'json',
  '.jsonl': 'jsonl',
  '.csv': 'csv',
  '.parquet': 'parquet',
  '.txt': 'text',
}

export type FileType = 'json' | 'jsonl' | 'csv' | 'parquet' | 'text'

/** The data files of one dataset: one file, or all files of a folder, of one type. */
export interface DatasetFiles {
  type: FileType
  /** Absolute paths, sorted by name. */
  paths: string[]
  bytes: number
  /** When the last of them was changed, in milliseconds since 1970. */
  modified: number
}

/**
 * Finds the files that `fileName` names inside `directory`. Links that lead out of the directory are refused.
 *
 * @throws EngineError `dataset_file_missing`, `dataset_file_outside`, `unsupported_file_type`, `mixed_file_types`.
 */
export async function findFiles(directory: string, fileName: string): Promise<DatasetFiles> {
  const path = await resolveInside(directory, fileName)
  const info = await stat(path)
  const paths = info.isDirectory() ? await listFolder(directory, path) : [path]
  const types = new Set(paths.map((file) => extname(file).toLowerCase()))
  const [extension] = types
  if (extension === undefined) throw missing(fileName)
  const type = FILE_TYPES[extension]
  if (type === undefined) throw unsupportedType(fileName)
  if (types.size > 1) {
    throw new EngineError(
      'invalid',
      'mixed_file_types',
      `File types should be identical: ${fileName} holds ${[...types].join(', ')}.`,
    )
  }
  let bytes = 0
  let modified = 0
  for (const file of paths) {
    const { size, mtimeMs } = await stat(file)
    bytes += size
    modified = Math.max(modified, mtimeMs)
  }
  return { type, paths, bytes, modified }
}

/** The error for a file extension without a reader. */
export function unsupportedType(fileName: string): EngineError {
  const allowed = Object.keys(FILE_TYPES)
    .map((extension) => extension.slice(1))
    .join(', ')
  return new EngineError('invalid', 'unsupported_file_type', `${fileName}: Allowed file types: ${allowed}.`)
}

async function listFolder(directory: string, folder: string): Promise<string[]> {
  const names = (await readdir(folder)).filter((name) => !name.startsWith('.')).sort()
  const files: string[] = []
  for (const name of names) {
    const file = await resolveInside(
      directory,
      join(folder, name).slice((await realpath(directory)).length + 1),
    )
    if ((await stat(file)).isFile()) files.push(file)
  }
  return files
}

async function resolveInside(directory: string, fileName: string): Promise<string> {
  if (isAbsolute(fileName) || fileName.includes('\0')) throw outside(fileName)
  let root: string
  let path: string
  try {
    root = await realpath(directory)
    path = await realpath(join(root, fileName))
  } catch {
    throw missing(fileName)
  }
  if (!path.startsWith(root + sep)) throw outside(fileName)
  return path
}

function missing(fileName: string): EngineError {
  return new EngineError(
    'not_found',
    'dataset_file_missing',
    `File ${fileName} not found in the dataset directory.`,
  )
}

function outside(fileName: string): EngineError {
  return new EngineError(
    'invalid',
    'dataset_file_outside',
    `file_name ${JSON.stringify(fileName)} must stay inside the dataset directory.`,
  )
}
