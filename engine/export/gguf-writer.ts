import { StreamBuffers, StreamedFile } from '../weights/streamed-file.ts'

/** A metadata value with its type in the file. */
export type GgufMetadataValue =
  | { u32: number }
  | { f32: number }
  | { flag: boolean }
  | { text: string }
  | { texts: readonly string[] }
  | { i32s: readonly number[] }
  | { f32s: readonly number[] }

export interface GgufTensorPlan {
  name: string
  /** Row-major; the file lists it in reverse. */
  shape: readonly number[]
  /** ggml's number of the element type. */
  ggmlType: number
  byteLength: number
}

const VERSION = 3
const ALIGNMENT = 32
/** Numbers of the metadata types (docs/gguf.md of ggml). */
const TYPE = { u32: 4, i32: 5, f32: 6, flag: 7, text: 8, list: 9 } as const

/**
 * Writes a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) tensor by tensor, in the planned order;
 * a tensor may come in parts. The file is `<path>.part` until `finish`.
 */
export class GgufWriter {
  readonly path: string
  readonly #buffers: StreamBuffers
  readonly #file: StreamedFile
  #position = 0
  readonly #tensors: readonly GgufTensorPlan[]
  #current = 0
  #left: number

  private constructor(path: string, tensors: readonly GgufTensorPlan[], byteLength: number) {
    this.path = path
    this.#tensors = tensors
    this.#left = tensors[0]?.byteLength ?? 0
    this.#buffers = new StreamBuffers(byteLength, { digests: true })
    this.#file = new StreamedFile(path, byteLength, this.#buffers)
  }

  /** Writes everything before the tensors' data. */
  static async create(
    path: string,
    metadata: ReadonlyMap<string, GgufMetadataValue>,
    tensors: readonly GgufTensorPlan[],
  ): Promise<GgufWriter> {
    const header = encodeHeader(metadata, tensors)
    const data = tensors.reduce((sum, { byteLength }) => sum + alignUp(byteLength), 0)
    const writer = new GgufWriter(path, tensors, alignUp(header.length) + data)
    try {
      await writer.#write(header)
      await writer.#pad()
    } catch (error) {
      await writer.abort()
      throw error
    }
    return writer
  }

  /** Writes the next bytes of the tensor whose turn it is. */
  async append(name: string, bytes: Uint8Array): Promise<void> {
    const tensor = this.#tensors[this.#current]
    if (tensor?.name !== name || bytes.length > this.#left) {
      throw new Error(
        `${this.path}: ${bytes.length} bytes of ${name} came where ${tensor?.name} was expected`,
      )
    }
    await this.#write(bytes)
    this.#left -= bytes.length
    if (this.#left > 0) return
    await this.#pad()
    this.#left = this.#tensors[++this.#current]?.byteLength ?? 0
  }

  /** Makes the file durable and gives it its name; resolves to its SHA-256 digest. */
  async finish(): Promise<string> {
    const missing = this.#tensors[this.#current]
    if (missing) throw new Error(`${this.path}: ${missing.name} is not written`)
    const digest = await this.#file.finish()
    await this.#buffers.close()
    return digest!
  }

  /** Drops the unfinished file. */
  async abort(): Promise<void> {
    await this.#file.abort()
    await this.#buffers.close()
  }

  async #pad(): Promise<void> {
    await this.#write(new Uint8Array(alignUp(this.#position) - this.#position))
  }

  async #write(bytes: Uint8Array): Promise<void> {
    await this.#file.put(this.#position, bytes)
    this.#position += bytes.length
  }
}

function encodeHeader(
  metadata: ReadonlyMap<string, GgufMetadataValue>,
  tensors: readonly GgufTensorPlan[],
): Buffer {
  const parts: Buffer[] = [Buffer.from('GGUF'), u32(VERSION), u64(tensors.length), u64(metadata.size)]
  for (const [key, value] of metadata) parts.push(text(key), ...encodeValue(value))
  let offset = 0
  for (const { name, shape, ggmlType, byteLength } of tensors) {
    parts.push(text(name), u32(shape.length), ...shape.toReversed().map(u64), u32(ggmlType), u64(offset))
    offset += alignUp(byteLength)
  }
  return Buffer.concat(parts)
}

function encodeValue(value: GgufMetadataValue): Buffer[] {
  if ('u32' in value) return [u32(TYPE.u32), u32(value.u32)]
  if ('f32' in value) return [u32(TYPE.f32), f32(value.f32)]
  if ('flag' in value) return [u32(TYPE.flag), Buffer.of(value.flag ? 1 : 0)]
  if ('text' in value) return [u32(TYPE.text), text(value.text)]
  if ('texts' in value) return list(TYPE.text, value.texts, text)
  if ('i32s' in value) return list(TYPE.i32, value.i32s, i32)
  return list(TYPE.f32, value.f32s, f32)
}

function list<T>(type: number, values: readonly T[], encode: (value: T) => Buffer): Buffer[] {
  return [u32(TYPE.list), u32(type), u64(values.length), ...values.map(encode)]
}

function alignUp(length: number): number {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

function i32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32LE(value)
  return bytes
}

function f32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeFloatLE(value)
  return bytes
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value)
  return Buffer.concat([u64(bytes.length), bytes])
}
