import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { EngineError } from '../errors.ts'
import { diskError } from './atomic-folder.ts'
import { type SafetensorsDType, tensorBytes } from './safetensors-header.ts'

/** What the header says of a tensor before its data is there. */
export interface PlannedTensor {
  name: string
  dtype: SafetensorsDType
  shape: readonly number[]
}

/** transformers refuses files that don't say which framework's layout they have; PyTorch's is the common one. */
const METADATA = { format: 'pt' }
const ALIGNMENT = 8

/**
 * Writes a safetensors file tensor by tensor, so that only one need be in memory. The file is `<path>.part` until
 * `finish`; the tensors are laid out widest dtype first, which aligns each to its element size.
 */
export class SafetensorsWriter {
  readonly path: string
  /** Size of the finished file. */
  readonly byteLength: number
  #descriptor: number | undefined
  readonly #missing: Map<string, Place>

  /** Plans the file and writes its header. @throws EngineError `invalid` for a name or shape that can't be. */
  constructor(path: string, planned: readonly PlannedTensor[], metadata: Record<string, string> = METADATA) {
    const { header, places, byteLength } = layOutSafetensors(planned, metadata)
    this.path = path
    this.byteLength = byteLength
    this.#missing = places
    this.#descriptor = openSync(`${path}.part`, 'w')
    try {
      this.#write(header, 0)
    } catch (error) {
      this.abort()
      throw error
    }
  }

  /** Writes one planned tensor's little-endian bytes; the order of tensors is free. */
  write(name: string, bytes: Uint8Array): void {
    const place = this.#missing.get(name)
    if (place && place.byteLength !== bytes.length) throw this.#wrongSize(name, bytes.length, place)
    this.append(name, bytes)
  }

  /** Writes the next part of a tensor, for those that are too large to be in memory as a whole. */
  append(name: string, bytes: Uint8Array): void {
    this.#write(bytes, this.#claim(name, bytes.length))
  }

  /** Where the next part of a tensor goes; it counts as written. */
  #claim(name: string, length: number): number {
    const place = this.#missing.get(name)
    if (!place || length > place.byteLength) throw this.#wrongSize(name, length, place)
    const { offset } = place
    place.offset += length
    place.byteLength -= length
    if (place.byteLength === 0) this.#missing.delete(name)
    return offset
  }

  /** Makes the file durable and gives it its name. */
  finish(): void {
    if (this.#missing.size > 0) {
      throw new Error(`${this.path}: not written: ${[...this.#missing.keys()].join(', ')}`)
    }
    fsyncSync(this.#descriptor!)
    this.#close()
    renameSync(`${this.path}.part`, this.path)
  }

  /** Drops the unfinished file. */
  abort(): void {
    this.#close()
    rmSync(`${this.path}.part`, { force: true })
  }

  #wrongSize(name: string, bytes: number, place: Place | undefined): Error {
    const expected = place ? `${place.byteLength} bytes` : 'a tensor that is planned and not yet written'
    return new Error(`${this.path}: ${name} came with ${bytes} bytes, expected ${expected}`)
  }

  #close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor)
    this.#descriptor = undefined
  }

  #write(bytes: Uint8Array, offset: number): void {
    let done = 0
    while (done < bytes.length) {
      done += writeSync(this.#descriptor!, bytes, done, Math.min(bytes.length - done, 1 << 30), offset + done)
    }
  }
}

/** Writes tensors that are all in memory. @throws EngineError `invalid` for a wrong name or shape, `too_large` when the disk is full. */
export function writeSafetensors(
  path: string,
  tensors: readonly (PlannedTensor & { data: Uint8Array })[],
  metadata?: Record<string, string>,
): void {
  let writer: SafetensorsWriter | undefined
  try {
    writer = new SafetensorsWriter(path, tensors, metadata)
    for (const { name, data } of tensors) writer.write(name, data)
    writer.finish()
  } catch (error) {
    writer?.abort()
    throw diskError(error, dirname(path))
  }
}

/** Where what is still missing of a tensor goes, from the file's start. */
export interface Place {
  offset: number
  byteLength: number
}

/** What a file begins with, where each tensor goes, in the file's order, and how long all is. */
export interface SafetensorsLayout {
  /** With its length in front. */
  header: Uint8Array
  places: Map<string, Place>
  byteLength: number
}

/** Lays tensors out, widest dtype first. @throws EngineError `invalid` for a name or shape that can't be. */
export function layOutSafetensors(
  planned: readonly PlannedTensor[],
  metadata: Record<string, string> = METADATA,
): SafetensorsLayout {
  const sized = planned.map((tensor) => ({ ...tensor, byteLength: sizeOf(tensor) }))
  sized.sort((a, b) => tensorBytes(b.dtype, [8])! - tensorBytes(a.dtype, [8])!)
  const fields = new Map<string, unknown>([['__metadata__', metadata]])
  let end = 0
  for (const { name, dtype, shape, byteLength } of sized) {
    if (fields.has(name)) {
      throw new EngineError('invalid', 'tensor_name_taken', `two tensors cannot both be called ${name}`)
    }
    fields.set(name, { dtype, shape, data_offsets: [end, end + byteLength] })
    end += byteLength
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(fields)))
  const length = Math.ceil(json.length / ALIGNMENT) * ALIGNMENT
  const header = Buffer.alloc(ALIGNMENT + length, ' ')
  header.writeBigUInt64LE(BigInt(length))
  json.copy(header, ALIGNMENT)

  const places = new Map<string, Place>()
  let offset = header.length
  for (const { name, byteLength } of sized) {
    places.set(name, { offset, byteLength })
    offset += byteLength
  }
  return { header, places, byteLength: offset }
}

function sizeOf({ name, dtype, shape }: PlannedTensor): number {
  const size = tensorBytes(dtype, shape)
  if (size !== undefined && name !== '__metadata__') return size
  throw new EngineError(
    'invalid',
    'tensor_unwritable',
    `${name} of shape [${shape}] and ${dtype} cannot be written`,
  )
}
