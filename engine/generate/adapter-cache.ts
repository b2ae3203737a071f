import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ADAPTER_FILES } from '../adapter/peft.ts'
import { EngineError } from '../errors.ts'
import type { Decoder, DecoderAdapter } from './decoder.ts'

interface Entry {
  readonly fingerprint: string
  readonly adapter: DecoderAdapter
}

/**
 * Keeps the adapters that were used last. A folder whose files changed since (a retrained checkpoint under the same
 * name) is read again; sequences that use the old one keep it until they end.
 */
export class AdapterCache {
  readonly #decoder: Pick<Decoder, 'loadAdapter'>
  readonly #capacity: number
  /** By folder, least recently used first. */
  readonly #entries = new Map<string, Entry>()

  constructor(decoder: Pick<Decoder, 'loadAdapter'>, capacity = 8) {
    this.#decoder = decoder
    this.#capacity = capacity
  }

  has(folder: string): boolean {
    return this.#entries.has(folder)
  }

  /** Lets an adapter go; requests that use it keep it until they end. Tells whether it was there. */
  forget(folder: string): boolean {
    return this.#entries.delete(folder)
  }

  /**
   * The adapter of a PEFT folder.
   * @throws EngineError not_found 'adapter_not_found' when a file is missing, and what loadAdapter throws.
   */
  async get(folder: string): Promise<DecoderAdapter> {
    const fingerprint = await fingerprintOf(folder)
    // Off the step path: what is parsed below at one go comes from memory then.
    if (this.#entries.get(folder)?.fingerprint !== fingerprint) {
      await Promise.all(ADAPTER_FILES.map((name) => readFile(join(folder, name))))
    }
    const known = this.#entries.get(folder)
    this.#entries.delete(folder)
    const adapter =
      known?.fingerprint === fingerprint
        ? known.adapter
        : await this.#decoder.loadAdapter(folder, `${folder} ${fingerprint}`)
    this.#entries.set(folder, { fingerprint, adapter })
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#capacity) break
      this.#entries.delete(oldest)
    }
    return adapter
  }
}

/** Changes whenever a file is rewritten or replaced. */
async function fingerprintOf(folder: string): Promise<string> {
  const parts: string[] = []
  for (const name of ADAPTER_FILES) {
    const path = join(folder, name)
    const stats = await stat(path).catch((cause: unknown) => {
      throw new EngineError('not_found', 'adapter_not_found', `The adapter file ${path} is missing.`, {
        cause,
      })
    })
    parts.push(`${stats.ino}:${stats.size}:${stats.mtimeMs}`)
  }
  return parts.join(' ')
}
