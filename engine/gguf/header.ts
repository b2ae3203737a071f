import { EngineError } from '../errors.ts'
import { GgufCursor } from './cursor.ts'
import { type GgufType, tensorTypeOf } from './types.ts'

/** A value of the metadata; 64-bit integers that a number cannot hold exactly stay bigint. */
export type GgufScalar = string | number | bigint | boolean
export type GgufValue = GgufScalar | readonly GgufScalar[]

export interface GgufTensor {
  name: string
  type: GgufType
  /** Row-major, as Hugging Face writes it: [rows, columns]. The file lists it in reverse. */
  shape: number[]
  /** Absolute byte offset in the file. */
  offset: number
  byteLength: number
}

export interface GgufHeader {
  version: number
  metadata: ReadonlyMap<string, GgufValue>
  tensors: ReadonlyMap<string, GgufTensor>
}

const MAGIC = 'GGUF'
const VERSIONS = [2, 3]
const DEFAULT_ALIGNMENT = 32
const MAX_TENSORS = 50_000
const MAX_KEYS = 10_000
const MAX_NAME_BYTES = 65_535
/** Longest single text: chat templates are the longest there are. */
const MAX_TEXT_BYTES = 16_000_000
/** Most elements of one list: the largest vocabularies have some 260,000 tokens and twice as many merges. */
const MAX_ELEMENTS = 2_000_000
/** All metadata together. */
const MAX_HEADER_BYTES = 256_000_000

/**
 * Reads the header of an open GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): metadata and the
 * tensors' places. Counts, lengths, offsets and sizes are checked against the file's size before anything is allocated.
 *
 * @throws EngineError `invalid` naming the place and value, `unsupported` for versions and tensor types not read here.
 */
export function readGgufHeader(cursor: GgufCursor): GgufHeader {
  const magic = cursor.take(4, 'the magic number').toString('latin1')
  if (magic !== MAGIC) throw cursor.fail(`it begins with ${JSON.stringify(magic)} instead of GGUF`)
  const version = cursor.u32('the version')
  if (!VERSIONS.includes(version)) throw unsupportedVersion(cursor.path, version)
  const tensorCount = cursor.u64('the number of tensors', MAX_TENSORS)
  const keyCount = cursor.u64('the number of metadata keys', MAX_KEYS)
  const metadata = readMetadata(cursor, keyCount)
  const places = readTensors(cursor, tensorCount)
  const dataStart = alignUp(cursor.position, readAlignment(cursor, metadata))
  return { version, metadata, tensors: placeTensors(cursor, places, dataStart) }
}

/** `readGgufHeader` of a file by name. */
export function readGgufFileHeader(path: string): GgufHeader {
  const cursor = new GgufCursor(path)
  try {
    return readGgufHeader(cursor)
  } finally {
    cursor.close()
  }
}

function readMetadata(cursor: GgufCursor, count: number): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>()
  for (let i = 0; i < count; i++) {
    const key = cursor.text(`metadata key ${i}`, MAX_NAME_BYTES)
    if (metadata.has(key)) throw cursor.fail(`the metadata key ${quote(key)} appears twice`)
    metadata.set(key, readValue(cursor, cursor.u32(`the type of ${quote(key)}`), key))
    if (cursor.position > MAX_HEADER_BYTES) {
      throw cursor.fail(`its metadata goes on after ${MAX_HEADER_BYTES} bytes, the most that is read`)
    }
  }
  return metadata
}

const ARRAY = 9

/** Metadata types by their number in the file, with the fewest bytes that one takes. */
const SCALARS: Record<number, { bytes: number; read(cursor: GgufCursor, what: string): GgufScalar }> = {
  0: { bytes: 1, read: (c, what) => c.take(1, what).readUInt8() },
  1: { bytes: 1, read: (c, what) => c.take(1, what).readInt8() },
  2: { bytes: 2, read: (c, what) => c.take(2, what).readUInt16LE() },
  3: { bytes: 2, read: (c, what) => c.take(2, what).readInt16LE() },
  4: { bytes: 4, read: (c, what) => c.take(4, what).readUInt32LE() },
  5: { bytes: 4, read: (c, what) => c.take(4, what).readInt32LE() },
  6: { bytes: 4, read: (c, what) => shortestFloat(c.take(4, what).readFloatLE()) },
  7: { bytes: 1, read: readBoolean },
  8: { bytes: 8, read: (c, what) => c.text(what, MAX_TEXT_BYTES) },
  10: { bytes: 8, read: (c, what) => exact(c.take(8, what).readBigUInt64LE()) },
  11: { bytes: 8, read: (c, what) => exact(c.take(8, what).readBigInt64LE()) },
  12: { bytes: 8, read: (c, what) => c.take(8, what).readDoubleLE() },
}

function readValue(cursor: GgufCursor, type: number, key: string): GgufValue {
  const what = `the value of ${quote(key)}`
  if (type !== ARRAY) return scalarType(cursor, type, key).read(cursor, what)
  const elementType = cursor.u32(`the element type of ${quote(key)}`)
  const { bytes, read } = scalarType(cursor, elementType, key)
  const count = cursor.u64(`the number of elements of ${quote(key)}`, MAX_ELEMENTS)
  if (count * bytes > cursor.left) {
    throw cursor.fail(`${quote(key)} claims ${count} elements, more than the ${cursor.left} bytes left hold`)
  }
  const values: GgufScalar[] = []
  for (let i = 0; i < count; i++) values.push(read(cursor, what))
  return values
}

/** No list in GGUF files in use holds lists; they would only serve to nest without end. */
function scalarType(cursor: GgufCursor, type: number, key: string) {
  const known = SCALARS[type]
  if (known) return known
  throw cursor.fail(
    `${quote(key)} has the ${type === ARRAY ? 'type of a list of lists' : `unknown type ${type}`}`,
  )
}

function readBoolean(cursor: GgufCursor, what: string): boolean {
  const value = cursor.take(1, what).readUInt8()
  if (value > 1) throw cursor.fail(`${what} is ${value}, neither true nor false`)
  return value === 1
}

interface UnplacedTensor extends Omit<GgufTensor, 'offset'> {
  /** From the start of the data. */
  relativeOffset: number
}

function readTensors(cursor: GgufCursor, count: number): UnplacedTensor[] {
  const tensors: UnplacedTensor[] = []
  for (let i = 0; i < count; i++) {
    const name = cursor.text(`the name of tensor ${i}`, MAX_NAME_BYTES)
    const dimensions = cursor.u32(`the number of dimensions of ${quote(name)}`)
    if (dimensions < 1 || dimensions > 4)
      throw cursor.fail(`${quote(name)} has ${dimensions} dimensions, not 1 to 4`)
    const shape: number[] = []
    for (let d = 0; d < dimensions; d++) {
      shape.unshift(cursor.u64(`dimension ${d} of ${quote(name)}`, Number.MAX_SAFE_INTEGER))
    }
    const type = tensorTypeOf(cursor, cursor.u32(`the type of ${quote(name)}`), name)
    const relativeOffset = cursor.u64(`the offset of ${quote(name)}`, Number.MAX_SAFE_INTEGER)
    tensors.push({ name, type, shape, byteLength: byteLengthOf(cursor, name, type, shape), relativeOffset })
  }
  return tensors
}

/** Bytes of a tensor; rows are whole blocks. Products are checked at each step, so that none can wrap around. */
function byteLengthOf(cursor: GgufCursor, name: string, type: GgufType, shape: readonly number[]): number {
  let elements = 1
  for (const dim of shape) {
    elements *= dim
    if (dim === 0 || !Number.isSafeInteger(elements * type.blockBytes)) {
      throw cursor.fail(`${quote(name)} has the impossible shape [${shape}]`)
    }
  }
  const columns = shape.at(-1)!
  if (columns % type.blockSize !== 0) {
    throw cursor.fail(
      `${quote(name)} has rows of ${columns} elements, which are no whole blocks of ${type.blockSize} (${type.name})`,
    )
  }
  return (elements / type.blockSize) * type.blockBytes
}

function readAlignment(cursor: GgufCursor, metadata: ReadonlyMap<string, GgufValue>): number {
  const value = metadata.get('general.alignment') ?? DEFAULT_ALIGNMENT
  const isPower =
    typeof value === 'number' && value >= 8 && value <= 65_536 && Number.isInteger(Math.log2(value))
  if (!isPower) throw cursor.fail(`general.alignment is ${value}, not a power of two from 8 to 65536`)
  return value
}

function placeTensors(
  cursor: GgufCursor,
  tensors: readonly UnplacedTensor[],
  dataStart: number,
): Map<string, GgufTensor> {
  const placed = new Map<string, GgufTensor>()
  let end = dataStart
  for (const { relativeOffset, ...tensor } of tensors.toSorted(
    (a, b) => a.relativeOffset - b.relativeOffset,
  )) {
    const { name, byteLength } = tensor
    if (placed.has(name)) throw cursor.fail(`two tensors are called ${quote(name)}`)
    const offset = dataStart + relativeOffset
    if (offset < end) throw cursor.fail(`${quote(name)} at byte ${offset} overlaps the one before it`)
    end = offset + byteLength
    if (!Number.isSafeInteger(end) || end > cursor.size) {
      throw cursor.fail(
        `${quote(name)} ends at byte ${end}, but the file has only ${cursor.size}; it is cut short`,
      )
    }
    placed.set(name, { ...tensor, offset })
  }
  return placed
}

function unsupportedVersion(path: string, version: number): EngineError {
  const swapped = version !== 0 && (version & 0xffff) === 0
  return new EngineError(
    'unsupported',
    'gguf_version_unsupported',
    swapped
      ? `${path} is a big-endian GGUF file; little-endian ones are read`
      : `${path} is GGUF version ${version}; versions ${VERSIONS.join(' and ')} are read`,
  )
}

/** The number with the fewest digits that is the same float32: 1e-5 instead of 0.000009999999747378752. */
function shortestFloat(value: number): number {
  if (!Number.isFinite(value)) return value
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits))
    if (Math.fround(short) === value) return short
  }
  return value
}

function exact(value: bigint): number | bigint {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value
}

function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment
}

/** JSON for a message, cut to a length that fits one. */
function quote(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 97)}...` : text)
}
