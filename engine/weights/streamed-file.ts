import { closeSync, constants, fsyncSync, ftruncateSync, openSync, renameSync, rmSync, write } from 'node:fs'
import { sharedPages } from '../wasm/instance.ts'
import { type BlockHash, hashHere, hashInThread } from './block-hash.ts'

/** What is written at a time; a few blocks are on their way to the disk and through the hash, in what caches hold. */
const BLOCK_BYTES = 4 << 20
const BLOCKS = 4
/** Writes of one file at a time: while one is waited for, the disk has the next. */
const WRITES = 2
/** From here on, a file is hashed by another thread and written past the page cache. */
const LARGE_BYTES = 32 << 20
/** Where and in what lengths a disk takes bytes without the page cache. */
const SECTOR_BYTES = 4096

/** The most bytes that `StreamedFile.room` gives. */
export const ROOM_BYTES = 1 << 20

export interface StreamOptions {
  /** Takes the SHA-256 digest of each file. */
  digests?: boolean | undefined
  /** From how many bytes of the longest file on they are hashed by another thread and written past the page cache. */
  largeBytes?: number
}

/** What files that are written one after the other share: a ring of blocks, and the hash. */
export class StreamBuffers {
  /** Blocks in a row, and behind them place for a room that goes past the last one. */
  readonly ring: Uint8Array
  readonly ringBytes: number
  readonly hash: BlockHash | undefined
  readonly isLarge: boolean

  /** @param longest bytes of the longest file that will be written. */
  constructor(longest: number, { digests, largeBytes = LARGE_BYTES }: StreamOptions = {}) {
    this.isLarge = longest >= largeBytes
    this.ringBytes = Math.min(BLOCKS, Math.ceil(longest / BLOCK_BYTES)) * BLOCK_BYTES
    const length = this.ringBytes + ROOM_BYTES
    this.ring = this.isLarge ? new Uint8Array(sharedPages(length)) : new Uint8Array(length)
    if (digests) this.hash = this.isLarge ? hashInThread() : hashHere()
  }

  /** Ends the thread, also in the middle of a file. */
  async close(): Promise<void> {
    await this.hash?.close()
  }
}

/**
 * A file that is written from its first byte to its last, while it is hashed. Large ones go past the page cache where the
 * system can do that: copying to it costs more than the disk does, its pages push out those of weights that are in
 * use, and all of them would be waited for at the end anyway. The file is `<path>.part` until `finish`.
 */
export class StreamedFile {
  readonly path: string
  readonly byteLength: number
  readonly #buffers: StreamBuffers
  /** The last one is in use. */
  readonly #descriptors: number[]
  #isDirect: boolean
  /** Bytes that are final. */
  #committed = 0
  /** When each block is hashed and written, and may be overwritten in the ring. */
  readonly #done: Promise<unknown>[] = []
  readonly #writes: Promise<void>[] = []

  constructor(path: string, byteLength: number, buffers: StreamBuffers) {
    this.path = path
    this.byteLength = byteLength
    this.#buffers = buffers
    const direct = buffers.isLarge ? openDirect(`${path}.part`) : undefined
    this.#isDirect = direct !== undefined
    this.#descriptors = [direct ?? openSync(`${path}.part`, 'w')]
  }

  /**
   * Memory for the file's bytes from `start` on, to be filled before `commit`. Rooms follow each other without a gap; the
   * next one may be asked for before this one is committed.
   *
   * @param length at most ROOM_BYTES.
   * @throws what went wrong with earlier blocks.
   */
  async room(start: number, length: number): Promise<Uint8Array> {
    if (length > ROOM_BYTES || start > this.#committed + ROOM_BYTES) {
      throw new Error(`${this.path}: no room for ${length} bytes at ${start}, after ${this.#committed}`)
    }
    const last = Math.floor((start + length - 1) / BLOCK_BYTES)
    const blocks = this.#buffers.ringBytes / BLOCK_BYTES
    // Where it begins and ends there were blocks a turn of the ring ago.
    await Promise.all([this.#done[last - 1 - blocks], this.#done[last - blocks]])
    const at = start % this.#buffers.ringBytes
    return this.#buffers.ring.subarray(at, at + length)
  }

  /** Says that the next room is filled, which goes up to byte `end` of the file. */
  commit(end: number): void {
    const { ring, ringBytes } = this.#buffers
    const beyond = (this.#committed % ringBytes) + end - this.#committed - ringBytes
    if (beyond > 0) ring.copyWithin(0, ringBytes, ringBytes + beyond) // it goes on in the first block
    const next = Math.floor(this.#committed / BLOCK_BYTES)
    const complete = end === this.byteLength ? Math.ceil(end / BLOCK_BYTES) : Math.floor(end / BLOCK_BYTES)
    this.#committed = end
    for (let block = next; block < complete; block++) this.#handOver(block)
  }

  /** Copies bytes of any length to where they go in the file. */
  async put(start: number, bytes: Uint8Array): Promise<void> {
    for (let from = 0; from < bytes.length; ) {
      const at = start + from
      const untilEnd = this.#buffers.ringBytes - (at % this.#buffers.ringBytes)
      const part = bytes.subarray(from, from + Math.min(ROOM_BYTES, untilEnd))
      const room = await this.room(at, part.length)
      room.set(part)
      from += part.length
      this.commit(start + from)
    }
  }

  /** Makes the file durable and gives it its name; resolves to its digest, where that was asked for. */
  async finish(): Promise<string | undefined> {
    if (this.#committed < this.byteLength) {
      throw new Error(`${this.path}: only ${this.#committed} of ${this.byteLength} bytes are written`)
    }
    await Promise.all(this.#done)
    const digest = await this.#buffers.hash?.digest()
    if (this.#isDirect) ftruncateSync(this.#descriptor, this.byteLength)
    fsyncSync(this.#descriptor)
    this.#close()
    renameSync(`${this.path}.part`, this.path)
    return digest
  }

  /** Drops the unfinished file. */
  async abort(): Promise<void> {
    await Promise.allSettled(this.#writes)
    this.#close()
    rmSync(`${this.path}.part`, { force: true })
  }

  get #descriptor(): number {
    return this.#descriptors.at(-1)!
  }

  #close(): void {
    for (const descriptor of this.#descriptors.splice(0)) closeSync(descriptor)
  }

  #handOver(block: number): void {
    const { ring, ringBytes, hash } = this.#buffers
    const start = block * BLOCK_BYTES
    const at = start % ringBytes
    const length = Math.min(BLOCK_BYTES, this.byteLength - start)
    const hashed = hash?.update(ring.subarray(at, at + length))
    this.#writes[block] = this.#write(block, start, at, length)
    this.#done[block] = Promise.all([hashed, this.#writes[block]])
    this.#done[block].catch(() => {}) // told by `room` or `finish`
  }

  async #write(block: number, start: number, at: number, length: number): Promise<void> {
    await this.#writes[block - WRITES]
    const { ring } = this.#buffers
    const padded = Math.ceil(length / SECTOR_BYTES) * SECTOR_BYTES
    ring.fill(0, at + length, at + padded) // what a disk takes ends with a sector; `finish` cuts it off again
    for (let done = 0; done < length; ) {
      const end = at + (this.#isDirect ? padded : length)
      done += await this.#writePart(ring.subarray(at + done, end), start + done)
    }
  }

  /** Resolves to how many bytes were written. */
  async #writePart(bytes: Uint8Array, position: number): Promise<number> {
    const descriptor = this.#descriptor
    const isDirect = this.#isDirect
    try {
      return await writeAsync(descriptor, bytes, position)
    } catch (error) {
      if (!isDirect || !isRefusal(error)) throw error
    }
    // The file system allowed at opening what it does not do. Another write may still have the first descriptor.
    if (this.#isDirect) this.#descriptors.push(openSync(`${this.path}.part`, 'r+'))
    this.#isDirect = false
    return 0
  }
}

/** Opens a file to write it past the page cache; undefined where that cannot be. */
function openDirect(path: string): number | undefined {
  const { O_DIRECT, O_WRONLY, O_CREAT, O_TRUNC } = constants
  if (O_DIRECT === undefined) return undefined // as on macOS and Windows
  try {
    return openSync(path, O_DIRECT | O_WRONLY | O_CREAT | O_TRUNC)
  } catch (error) {
    if (isRefusal(error)) return undefined
    throw error
  }
}

function isRefusal(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'EINVAL' || code === 'EOPNOTSUPP'
}

/** Writes bytes at a position of the file; resolves to how many. */
function writeAsync(descriptor: number, bytes: Uint8Array, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    write(descriptor, bytes, 0, bytes.length, position, (error, written) =>
      error ? reject(error) : resolve(written),
    )
  })
}
