import { type FileHandle, open } from 'node:fs/promises'

/** Large enough that a download does not consist of system calls, small enough for hundreds at once. */
const CHUNK_BYTES = 512 << 10
/** Most bytes that are kept for later downloads: new memory costs the kernel as much as the reading. */
const MOST_FREE_BYTES = 64 << 20

const freeBuffers: Uint8Array[] = []

const takeBuffer = () => freeBuffers.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES)

function giveBuffer(buffer: Uint8Array): void {
  if (freeBuffers.length * CHUNK_BYTES < MOST_FREE_BYTES) freeBuffers.push(buffer)
}

/**
 * A part of a file in chunks, read ahead by one into two buffers that take turns: a chunk keeps its bytes until the next is
 * asked for. Ends with an error where the file turns out shorter.
 */
export class FileChunks implements AsyncIterableIterator<Uint8Array> {
  readonly #file: FileHandle
  readonly #buffers = [takeBuffer(), takeBuffer()] as const
  #turn = 0
  readonly #onClose: () => void
  #position: number
  readonly #end: number
  #reading: Promise<Uint8Array> | undefined
  #isClosed = false

  private constructor(file: FileHandle, { start, end, onClose }: FileChunksOptions) {
    this.#file = file
    this.#onClose = onClose
    this.#position = start
    this.#end = end + 1
  }

  /** Rejects where the file cannot be opened; then `onClose` is not called. */
  static async open(path: string, options: FileChunksOptions): Promise<FileChunks> {
    return new FileChunks(await open(path, 'r'), options)
  }

  async next(): Promise<IteratorResult<Uint8Array>> {
    try {
      const chunk = this.#isClosed ? undefined : await (this.#reading ?? this.#read())
      if (chunk) {
        this.#reading = this.#read()
        this.#reading?.catch(() => {}) // whoever asks for the next chunk hears of it
        return { done: false, value: chunk }
      }
    } catch (error) {
      await this.return()
      throw error
    }
    return this.return()
  }

  /** Closes the file, after the end or before; what was read is forgotten. */
  async return(): Promise<{ done: true; value: undefined }> {
    if (!this.#isClosed) {
      this.#isClosed = true
      await this.#reading?.catch(() => {})
      for (const buffer of this.#buffers) giveBuffer(buffer)
      await this.#file.close()
      this.#onClose()
    }
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  /** Fills the buffer whose chunk nobody has any more; undefined at the end. */
  #read(): Promise<Uint8Array> | undefined {
    if (this.#position === this.#end) return undefined
    const buffer = this.#buffers[this.#turn++ % 2]!
    const length = Math.min(buffer.length, this.#end - this.#position)
    const position = this.#position
    this.#position += length
    return this.#fill(buffer.subarray(0, length), position)
  }

  async #fill(chunk: Uint8Array, position: number): Promise<Uint8Array> {
    for (let done = 0; done < chunk.length; ) {
      const { bytesRead } = await this.#file.read(chunk, done, chunk.length - done, position + done)
      if (bytesRead === 0) throw new Error(`the file ends at byte ${position + done} of ${this.#end}`)
      done += bytesRead
    }
    return chunk
  }
}

export interface FileChunksOptions {
  /** Both inclusive. */
  start: number
  end: number
  /** Called once, when nothing will be read any more. */
  onClose: () => void
}
