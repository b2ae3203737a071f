import { randomBytes } from 'node:crypto'
import { createReadStream, existsSync } from 'node:fs'
import { mkdir, open, readdir, readFile, rename } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { Readable } from 'node:stream'
import { z } from 'zod'
import { EngineError } from '../../engine/errors.ts'
import type { StagedFile } from '../datasets/staging.ts'
import { removeFolder } from '../models/remove.ts'

const record = z.object({
  id: z.string(),
  filename: z.string(),
  purpose: z.string(),
  bytes: z.number(),
  /** Milliseconds since 1970. */
  createdAt: z.number(),
})

export type FileRecord = z.infer<typeof record>

const ID = /^file-[0-9a-f]{16}$/

/**
 * Uploaded files, each in a folder of its own: `content` beside `file.json`. A folder appears by a rename, so it is whole
 * or absent, and the folders are the only list there is.
 */
export class FileStore {
  readonly #folder: string
  readonly #saves: string

  constructor(saves: string) {
    this.#saves = saves
    this.#folder = join(saves, 'files')
  }

  /** Where uploads are written while they arrive. */
  get stagingDirectory(): string {
    return this.#folder
  }

  /** Keeps a staged file. */
  async add(
    staged: StagedFile,
    { filename, purpose }: { filename: string; purpose: string },
  ): Promise<FileRecord> {
    const id = `file-${randomBytes(8).toString('hex')}`
    const kept = {
      id,
      filename: basename(filename) || 'upload',
      purpose,
      bytes: staged.bytes,
      createdAt: Date.now(),
    }
    const partial = join(this.#folder, `.upload-${id}`)
    await mkdir(partial)
    await rename(staged.path, join(partial, 'content'))
    const handle = await open(join(partial, 'file.json'), 'wx')
    await handle.writeFile(JSON.stringify(kept))
    await handle.sync()
    await handle.close()
    await rename(partial, join(this.#folder, id))
    return kept
  }

  /** @throws EngineError `not_found`. */
  async get(id: string): Promise<FileRecord> {
    const file = join(this.#folder, id, 'file.json')
    if (ID.test(id) && existsSync(file)) return record.parse(JSON.parse(await readFile(file, 'utf8')))
    throw new EngineError(
      'not_found',
      'file_not_found',
      `There is no file ${JSON.stringify(id.slice(0, 60))}.`,
      {
        param: 'file_id',
      },
    )
  }

  /** Newest first. */
  async list(): Promise<FileRecord[]> {
    if (!existsSync(this.#folder)) return []
    const ids = (await readdir(this.#folder)).filter((name) => ID.test(name))
    const records = await Promise.all(ids.map((id) => this.get(id)))
    return records.sort((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? 1 : -1))
  }

  /** The path of what a file holds, for reading. @throws EngineError `not_found`. */
  async pathOf(id: string): Promise<string> {
    await this.get(id)
    return join(this.#folder, id, 'content')
  }

  async read(id: string, start: number, end: number): Promise<Readable> {
    return createReadStream(await this.pathOf(id), { start, end })
  }

  /** @throws EngineError `not_found`. */
  async delete(id: string): Promise<void> {
    await this.get(id)
    await removeFolder(join(this.#folder, id), this.#saves)
  }
}
