import { decodeFloat32 } from '../weights/dtypes.ts'
import { readBytes } from '../weights/safetensors-header.ts'
import { GgufCursor } from './cursor.ts'
import { dequantize } from './dequantize.ts'
import { type GgufTensor, type GgufValue, readGgufHeader } from './header.ts'
import { GgufMetadata } from './metadata.ts'

/** A GGUF file whose header has been read and checked. Holds the file open until `close`. */
export class GgufFile {
  readonly path: string
  readonly values: ReadonlyMap<string, GgufValue>
  readonly metadata: GgufMetadata
  readonly tensors: ReadonlyMap<string, GgufTensor>
  readonly #cursor: GgufCursor

  private constructor(cursor: GgufCursor) {
    const { metadata, tensors } = readGgufHeader(cursor)
    this.path = cursor.path
    this.values = metadata
    this.metadata = new GgufMetadata(cursor.path, metadata)
    this.tensors = tensors
    this.#cursor = cursor
  }

  /** @throws what readGgufHeader throws, and `not_found`. */
  static open(path: string): GgufFile {
    const cursor = new GgufCursor(path)
    try {
      return new GgufFile(cursor)
    } catch (error) {
      cursor.close()
      throw error
    }
  }

  /**
   * `count` elements of a tensor from element `start` on, as float32; both are multiples of the type's block size. A
   * quantized block has one value for each element: what the runtimes compute with.
   */
  readValues({ type, offset, byteLength }: GgufTensor, start: number, count: number): Float32Array {
    const from = (start / type.blockSize) * type.blockBytes
    const length = (count / type.blockSize) * type.blockBytes
    if (!Number.isInteger(from) || !Number.isInteger(length) || from + length > byteLength) {
      throw new Error(
        `${this.path}: elements ${start} to ${start + count} are no whole blocks of this tensor`,
      )
    }
    const bytes = readBytes(this.#cursor.descriptor, offset + from, length, this.path)
    switch (type.name) {
      case 'F32':
        return decodeFloat32(bytes, 'float32')
      case 'F16':
        return decodeFloat32(bytes, 'float16')
      case 'BF16':
        return decodeFloat32(bytes, 'bfloat16')
      default:
        return dequantize(type.name, bytes, count)
    }
  }

  close(): void {
    this.#cursor.close()
  }
}
