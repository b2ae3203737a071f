import { EngineError } from '../../engine/errors.ts'

/** Counts who reads a folder, so that it is not deleted under them. */
export class FolderLeases {
  readonly #readers = new Map<string, number>()
  readonly #closing = new Set<string>()
  readonly #waiting = new Map<string, () => void>()

  /**
   * Keeps a folder until the returned function is called (once; later calls do nothing).
   *
   * @throws EngineError `not_found` when the folder is about to be deleted.
   */
  acquire(folder: string): () => void {
    if (this.#closing.has(folder)) {
      throw new EngineError('not_found', 'model_deleted', 'This is being deleted.', { param: 'id' })
    }
    this.#readers.set(folder, this.readers(folder) + 1)
    let held = true
    return () => {
      if (held) this.#release(folder)
      held = false
    }
  }

  readers(folder: string): number {
    return this.#readers.get(folder) ?? 0
  }

  /**
   * Lets no new reader in, waits until the last has gone, does the work, and opens the folder's name again.
   *
   * @throws EngineError `conflict` when a reader is still there after `timeoutMs`; then nothing was done.
   */
  async withoutReaders(folder: string, timeoutMs: number, work: () => Promise<void>): Promise<void> {
    if (this.#closing.has(folder)) {
      throw new EngineError('conflict', 'model_in_use', 'This is being deleted already.', { param: 'id' })
    }
    this.#closing.add(folder)
    try {
      await this.#drained(folder, timeoutMs)
      await work()
    } finally {
      this.#closing.delete(folder)
    }
  }

  async #drained(folder: string, timeoutMs: number): Promise<void> {
    if (this.readers(folder) === 0) return
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(folder)
        const message = `It is still being downloaded (${this.readers(folder)} downloads); try again later.`
        reject(new EngineError('conflict', 'model_in_use', message, { param: 'id' }))
      }, timeoutMs)
      this.#waiting.set(folder, () => {
        clearTimeout(timer)
        resolve()
      })
    })
  }

  #release(folder: string): void {
    const left = this.readers(folder) - 1
    if (left > 0) {
      this.#readers.set(folder, left)
      return
    }
    this.#readers.delete(folder)
    this.#waiting.get(folder)?.()
    this.#waiting.delete(folder)
  }
}
