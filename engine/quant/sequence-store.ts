import { closeSync, constants, openSync, readSync, write, writeSync } from 'node:fs'
import { promisify } from 'node:util'
import { elementCount, floatTensor, type Tensor } from '../tensor.ts'

const writeAsync = promisify(write)

/** Bytes that stores may hold in memory together; what goes beyond lies on disk. */
export interface Allowance {
  left: number
}

/**
 * A float32 value of every sequence, batch after batch: in memory as far as the allowance goes, else in a file, so that
 * memory does not grow with the number of sequences. The file stays, for another store to write over.
 */
export class SequenceStore {
  readonly #path: string
  readonly #allowance: Allowance
  /** By the first sequence of the batch. */
  readonly #kept = new Map<number, Tensor>()
  readonly #dims = new Map<number, readonly number[]>()
  #descriptor: number | undefined

  constructor(path: string, allowance: Allowance) {
    this.#path = path
    this.#allowance = allowance
  }

  /** Keeps the value of a batch of `count` sequences from `first` on; it must not be changed afterwards. */
  write(first: number, count: number, tensor: Tensor): void {
    const { data, dims } = tensor
    if (this.#allowance.left >= data.byteLength) {
      this.#allowance.left -= data.byteLength
      this.#kept.set(first, tensor)
      return
    }
    this.#descriptor ??= openKept(this.#path)
    this.#dims.set(first, dims)
    writeValues(this.#descriptor, data as Float32Array, first * (data.length / count))
  }

  /** A batch as it was written. @param isLast it will not be read again. */
  read(first: number, count: number, isLast: boolean): Tensor {
    const kept = this.#kept.get(first)
    if (kept) {
      if (isLast) this.#drop(first, kept)
      return kept
    }
    const dims = this.#dims.get(first)!
    const values = new Float32Array(elementCount(dims))
    readValues(this.#descriptor!, values, first * (values.length / count))
    return floatTensor(values, dims)
  }

  close(): void {
    for (const [first, tensor] of this.#kept) this.#drop(first, tensor)
    if (this.#descriptor !== undefined) closeSync(this.#descriptor)
    this.#descriptor = undefined
  }

  #drop(first: number, { data }: Tensor): void {
    this.#kept.delete(first)
    this.#allowance.left += data.byteLength
  }
}

/**
 * Opens a file for reading and writing, with what it holds: to write over pages that the system has in memory costs a fraction
 * of what new ones do, which it clears first.
 */
export function openKept(path: string): number {
  return openSync(path, constants.O_RDWR | constants.O_CREAT)
}

/** Fills `values` from an open file, from its float32 number `start` on. */
export function readValues(descriptor: number, values: Float32Array, start: number): void {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  for (let done = 0; done < bytes.length; ) {
    const read = readSync(descriptor, bytes, done, bytes.length - done, start * 4 + done)
    if (read === 0) throw new Error(`a file of sequences ends before its number ${start + values.length}`)
    done += read
  }
}

/** Writes `values`, which must stay as they are until then, to an open file, from its float32 number `start` on. */
export async function writeValuesAsync(
  descriptor: number,
  values: Float32Array,
  start: number,
): Promise<void> {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await writeAsync(descriptor, bytes, done, bytes.length - done, start * 4 + done)
    done += bytesWritten
  }
}

function writeValues(descriptor: number, values: Float32Array, start: number): void {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(descriptor, bytes, done, bytes.length - done, start * 4 + done)
  }
}
