import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'

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
  #descriptor: number | undefined
  #position = 0
  readonly #tensors: readonly GgufTensorPlan[]
  #current = 0
  #left: number

  /** Writes everything before the tensors' data. */
  constructor(
    path: string,
    metadata: ReadonlyMap<string, GgufMetadataValue>,
    tensors: readonly GgufTensorPlan[],
  ) {
    this.path = path
    this.#tensors = tensors
    this.#left = tensors[0]?.byteLength ?? 0
    this.#descriptor = openSync(`${path}.part`, 'w')
    try {
      this.#write(encodeHeader(metadata, tensors))
      this.#pad()
    } catch (error) {
      this.abort()
      throw error
    }
  }

  /** Writes the next bytes of the tensor whose turn it is. */
  append(name: string, bytes: Uint8Array): void {
    const tensor = this.#tensors[this.#current]
    if (tensor?.name !== name || bytes.length > this.#left) {
      throw new Error(
        `${this.path}: ${bytes.length} bytes of ${name} came where ${tensor?.name} was expected`,
      )
    }
    this.#write(bytes)
    this.#left -= bytes.length
    if (this.#left > 0) return
    this.#pad()
    this.#left = this.#tensors[++this.#current]?.byteLength ?? 0
  }

  /** Makes the file durable and gives it its name. */
  finish(): void {
    const missing = this.#tensors[this.#current]
    if (missing) throw new Error(`${this.path}: ${missing.name} is not written`)
    fsyncSync(this.#descriptor!)
    this.#close()
    renameSync(`${this.path}.part`, this.path)
  }

  /** Drops the unfinished file. */
  abort(): void {
    this.#close()
    rmSync(`${this.path}.part`, { force: true })
  }

  #close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor)
    this.#descriptor = undefined
  }

  #pad(): void {
    this.#write(new Uint8Array(alignUp(this.#position) - this.#position))
  }

  #write(bytes: Uint8Array): void {
    let done = 0
    while (done < bytes.length) {
      done += writeSync(this.#descriptor!, bytes, done, Math.min(bytes.length - done, 1 << 30))
    }
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
