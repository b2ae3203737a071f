import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs'
import { EngineError } from '../errors.ts'

/** Bytes that one read of a header takes. */
const WINDOW_BYTES = 1 << 20

/** Why a GGUF file is refused, with its path in front. */
export function malformedGguf(path: string, problem: string, cause?: unknown): EngineError {
  return new EngineError('invalid', 'gguf_malformed', `${path} is not a valid GGUF file: ${problem}`, {
    cause,
  })
}

/**
 * Reads a file from front to back in small windows. Every length is checked against what is left of the file before
 * anything of that length is allocated.
 */
export class GgufCursor {
  readonly path: string
  /** Of the file, in bytes. */
  readonly size: number
  readonly descriptor: number
  #window = Buffer.alloc(0)
  #windowStart = 0
  #position = 0

  /** @throws EngineError `not_found`, or `invalid` for what is no regular file. */
  constructor(path: string) {
    // Before opening: a named pipe would wait for a writer.
    const found = statSync(path, { throwIfNoEntry: false })
    if (!found) throw new EngineError('not_found', 'gguf_not_found', `${path} does not exist`)
    if (!found.isFile()) throw malformedGguf(path, 'it is not a regular file')
    this.path = path
    this.descriptor = openSync(path, 'r')
    this.size = fstatSync(this.descriptor).size
  }

  get position(): number {
    return this.#position
  }

  get left(): number {
    return this.size - this.#position
  }

  /** The next `length` bytes, valid until the next call. @throws EngineError `invalid` when the file ends before. */
  take(length: number, what: string): Buffer {
    if (!Number.isSafeInteger(length) || length > this.left) {
      throw this.fail(
        `${what} at byte ${this.#position} takes ${length} bytes, but only ${this.left} are left; it is cut short`,
      )
    }
    if (this.#position + length > this.#windowStart + this.#window.length) this.#refill(length)
    const start = this.#position - this.#windowStart
    this.#position += length
    return this.#window.subarray(start, start + length)
  }

  u32(what: string): number {
    return this.take(4, what).readUInt32LE()
  }

  /** An unsigned 64-bit count or size. @throws EngineError `invalid` beyond `limit`. */
  u64(what: string, limit: number): number {
    const value = this.take(8, what).readBigUInt64LE()
    if (value > BigInt(limit)) throw this.fail(`${what} is ${value}; the limit is ${limit}`)
    return Number(value)
  }

  /** A length of 64 bits and that many bytes of UTF-8. */
  text(what: string, limit: number): string {
    const length = this.u64(`the length of ${what}`, Math.min(limit, this.size))
    return this.take(length, what).toString('utf8')
  }

  fail(problem: string): EngineError {
    return malformedGguf(this.path, problem)
  }

  close(): void {
    closeSync(this.descriptor)
  }

  #refill(length: number): void {
    const window = Buffer.alloc(Math.min(this.left, Math.max(length, WINDOW_BYTES)))
    let done = 0
    while (done < window.length) {
      const read = readSync(this.descriptor, window, done, window.length - done, this.#position + done)
      if (read === 0) throw this.fail(`it ends at byte ${this.#position + done}`)
      done += read
    }
    this.#window = window
    this.#windowStart = this.#position
  }
}
