import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { EngineError, messageOf } from '../../engine/errors.ts'
import { type DatasetAttributes, type RawEntry, readEntry } from './entry.ts'
import { type DatasetFiles, FILE_TYPES, findFiles, unsupportedType } from './files.ts'
import { countRows } from './readers/index.ts'

const INFO_FILE = 'dataset_info.json'
/** Datasets that an error lists, of those that there are. */
const NAMED = 8

/** A name that can stand in a URL and in front of a file extension. */
const DATASET_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/

/** A dataset that can be read. */
export interface DatasetSource {
  name: string
  attributes: DatasetAttributes
  files: DatasetFiles
}

/** What is known about an entry without reading its rows. */
export interface DatasetSummary {
  name: string
  /** The entry as it stands in dataset_info.json. */
  entry: Record<string, unknown>
  /** The readable dataset, or why it cannot be used. */
  source: DatasetSource | EngineError
}

/**
 * The datasets of one or more directories, each with LLaMA-Factory's dataset_info.json; of equal names the first
 * directory's counts. New datasets go into the last directory. The files are read anew on each call, so edits by hand count.
 */
export class DatasetRegistry {
  readonly #directories: readonly string[]
  readonly #rowCounts = new Map<string, number>()
  #lastWrite: Promise<unknown> = Promise.resolve()

  constructor(options: { directories: readonly string[] }) {
    this.#directories = options.directories
  }

  /** Where new datasets are written. */
  get uploadDirectory(): string {
    return this.#directories.at(-1) ?? '.'
  }

  /** All entries in the order of their files. One that cannot be used carries its error instead of failing the list. */
  async list(): Promise<DatasetSummary[]> {
    const summaries: DatasetSummary[] = []
    for (const [name, { directory, entry }] of await this.#entries()) {
      const source = await readSource(name, directory, entry).catch((error: unknown) => {
        if (error instanceof EngineError) return error
        throw error
      })
      summaries.push({ name, entry, source })
    }
    return summaries
  }

  /**
   * One dataset, ready to be read.
   * @throws EngineError `unknown_dataset`, or why its entry or file cannot be used.
   */
  async get(name: string): Promise<DatasetSource> {
    const entries = await this.#entries()
    const found = entries.get(name)
    if (found === undefined) {
      const places = this.#directories
      if (!places.some((directory) => existsSync(join(directory, INFO_FILE)))) {
        const message = `Undefined dataset ${name}: there is no ${INFO_FILE} in ${places.join(', ')}.`
        throw new EngineError('not_found', 'unknown_dataset', message, { param: 'dataset' })
      }
      const names = [...entries.keys()]
      const known =
        names.length > 0
          ? ` Known: ${names.slice(0, NAMED).join(', ')}${names.length > NAMED ? ', …' : ''}.`
          : ''
      const message = `Undefined dataset ${name} in ${INFO_FILE}.${known}`
      throw new EngineError('not_found', 'unknown_dataset', message, { param: 'dataset' })
    }
    return readSource(name, found.directory, found.entry)
  }

  /** How many rows a dataset's files have; counted once for each state of the files. */
  async countRows(source: DatasetSource): Promise<number> {
    const { paths, bytes, modified } = source.files
    const key = JSON.stringify([paths, bytes, modified])
    const known = this.#rowCounts.get(key)
    if (known !== undefined) return known
    const rows = await countRows(source.files)
    this.#rowCounts.set(key, rows)
    return rows
  }

  /**
   * Registers `file` (anywhere on the same file system) as a new dataset: it is moved into the upload directory and the
   * entry is added to its dataset_info.json, which is replaced atomically.
   * @throws EngineError `dataset_exists` for a taken name, `malformed_dataset_entry`, `unsupported_dataset`.
   */
  add(name: string, entry: RawEntry, file: string): Promise<DatasetSource> {
    const added = this.#lastWrite.then(() => this.#add(name, entry, file))
    this.#lastWrite = added.catch(() => {})
    return added
  }

  async #add(name: string, entry: RawEntry, file: string): Promise<DatasetSource> {
    const directory = this.uploadDirectory
    await this.checkNew(name)
    const extension = extname(file).toLowerCase()
    if (FILE_TYPES[extension] === undefined) throw unsupportedType(file)
    const fileName = `${name}${extension}`
    const complete = { ...entry, file_name: fileName }
    readEntry(name, complete)

    const info = await readInfo(directory)
    const target = join(directory, fileName)
    if (existsSync(target)) throw taken(`There is already a file ${fileName}, which is not registered.`)
    await rename(file, target)
    await writeInfo(directory, { ...info, [name]: complete })
    return readSource(name, directory, complete)
  }

  /** Throws when `name` cannot be given to a new dataset. */
  async checkNew(name: string): Promise<void> {
    if (!DATASET_NAME.test(name)) {
      throw new EngineError(
        'invalid',
        'malformed_dataset_name',
        `A dataset's name has letters, digits, _ . and -, at most 64, and starts with a letter or digit: ${name}`,
        { param: 'name' },
      )
    }
    if ((await this.#entries()).has(name)) {
      throw taken(`There is already a dataset named ${name}.`)
    }
  }

  async #entries(): Promise<Map<string, { directory: string; entry: Record<string, unknown> }>> {
    const entries = new Map<string, { directory: string; entry: Record<string, unknown> }>()
    for (const directory of this.#directories) {
      for (const [name, entry] of Object.entries(await readInfo(directory))) {
        if (!entries.has(name)) entries.set(name, { directory, entry })
      }
    }
    return entries
  }
}

async function readSource(name: string, directory: string, entry: unknown): Promise<DatasetSource> {
  const attributes = readEntry(name, entry)
  return { name, attributes, files: await findFiles(directory, attributes.fileName) }
}

function taken(message: string): EngineError {
  return new EngineError('conflict', 'dataset_exists', `${message} Choose another name.`, { param: 'name' })
}

type Info = Record<string, Record<string, unknown>>

/** The directory's dataset_info.json; empty when there is none. */
async function readInfo(directory: string): Promise<Info> {
  const path = join(directory, INFO_FILE)
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return {}
    throw malformed(path, error)
  }
  try {
    const value: unknown = JSON.parse(text.replace(/^\uFEFF/, ''))
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Info
  } catch (error) {
    throw malformed(path, error)
  }
  throw malformed(path, new Error('it must hold a JSON object'))
}

function malformed(path: string, cause: unknown): EngineError {
  const reason = messageOf(cause)
  return new EngineError('invalid', 'malformed_dataset_info', `${path} cannot be read: ${reason}`, { cause })
}

async function writeInfo(directory: string, info: Info): Promise<void> {
  await mkdir(directory, { recursive: true })
  const temporary = join(directory, `.${INFO_FILE}.${randomBytes(6).toString('hex')}.tmp`)
  try {
    const handle = await open(temporary, 'wx')
    await handle.writeFile(`${JSON.stringify(info, null, 2)}\n`)
    await handle.sync()
    await handle.close()
    await rename(temporary, join(directory, INFO_FILE))
  } finally {
    await rm(temporary, { force: true })
  }
}
