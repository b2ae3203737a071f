import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import { EngineError } from '../errors.ts'
import type { WeightDType } from './dtypes.ts'

/** Bits of one element, for every dtype of the format (safetensors 0.7); most are listed only so that headers check. */
const BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const

export type SafetensorsDType = keyof typeof BITS

/** How the format names the element types of weights. */
export const SAFETENSORS_NAMES: Record<WeightDType, SafetensorsDType> = {
  float32: 'F32',
  float16: 'F16',
  bfloat16: 'BF16',
}

/** One tensor of a safetensors file. */
export interface TensorEntry {
  name: string
  dtype: SafetensorsDType
  shape: number[]
  /** File name, relative to its folder. */
  file: string
  /** Absolute byte offset in that file. */
  offset: number
  byteLength: number
}

export interface SafetensorsHeader {
  entries: TensorEntry[]
  metadata: Record<string, string>
}

/** Longest header that is read, in bytes; the hub's own limit. */
export const MAX_HEADER_BYTES = 25_000_000
/** Most tensors that one file may list. */
const MAX_TENSORS = 50_000
const LENGTH_BYTES = 8

/**
 * Reads and checks the header of a safetensors file: every length and offset is checked against the file's size before
 * anything of that length is allocated.
 *
 * @throws EngineError `not_found` when the file can't be opened, `invalid` naming file, tensor and values otherwise.
 */
export function readSafetensorsHeader(path: string): SafetensorsHeader {
  const descriptor = openForRead(path)
  try {
    return readHeader(descriptor, path)
  } finally {
    closeSync(descriptor)
  }
}

/** Opens a weights file. @throws EngineError `not_found`, or `invalid` for what is no regular file, naming it. */
export function openForRead(path: string): number {
  // Before opening: a named pipe would wait for a writer.
  if (statSync(path, { throwIfNoEntry: false })?.isFile() === false)
    throw failure(path)('it is not a regular file')
  try {
    return openSync(path, 'r')
  } catch (cause) {
    throw new EngineError('not_found', 'weights_missing', `${path} cannot be opened`, { cause })
  }
}

/** `readSafetensorsHeader` on a file that is open already; `path` is for messages and the entries' file name. */
export function readHeader(descriptor: number, path: string): SafetensorsHeader {
  const fail = failure(path)
  const { size } = fstatSync(descriptor)
  if (size < LENGTH_BYTES) throw fail(`it has ${size} bytes, fewer than the ${LENGTH_BYTES} of a length`)
  const length = Buffer.from(readBytes(descriptor, 0, LENGTH_BYTES, path)).readBigUInt64LE()
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw fail(`its header claims ${length} bytes; the limit is ${MAX_HEADER_BYTES}`)
  }
  const dataStart = LENGTH_BYTES + Number(length)
  if (dataStart > size) {
    throw fail(`its header claims ${length} bytes, but the file has only ${size}; it is cut short`)
  }
  const fields = parseHeader(readBytes(descriptor, LENGTH_BYTES, Number(length), path), fail)
  const metadata = readMetadata(fields, fail)
  const entries: TensorEntry[] = []
  for (const [name, value] of fields) entries.push(readEntry(name, value, basename(path), dataStart, fail))
  checkLayout(entries, dataStart, size, fail)
  return { entries, metadata }
}

/**
 * Reads exactly `length` bytes at `offset` into memory of their own, or into `bytes`, which is that long. The caller has
 * checked them against the size.
 */
export function readBytes(
  descriptor: number,
  offset: number,
  length: number,
  path: string,
  bytes: Uint8Array = new Uint8Array(length),
): Uint8Array {
  let done = 0
  while (done < length) {
    const read = readSync(descriptor, bytes, done, Math.min(length - done, 1 << 30), offset + done)
    if (read === 0)
      throw failure(path)(`it ends at byte ${offset + done}, where ${length - done} more were expected`)
    done += read
  }
  return bytes
}

type Fail = (problem: string) => EngineError

function failure(path: string): Fail {
  return (problem) =>
    new EngineError('invalid', 'safetensors_malformed', `${path} is not a valid safetensors file: ${problem}`)
}

function parseHeader(bytes: Uint8Array, fail: Fail): Map<string, unknown> {
  if (bytes[0] !== 0x7b) throw fail("its header does not begin with '{'")
  checkBrackets(bytes, fail)
  let parsed: unknown
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw fail(`its header is not JSON in UTF-8 (${cause instanceof Error ? cause.message : cause})`)
  }
  const fields = new Map(Object.entries(parsed as Record<string, unknown>))
  if (fields.size > MAX_TENSORS + 1) {
    throw fail(`it lists ${fields.size} tensors; the limit is ${MAX_TENSORS}`)
  }
  return fields
}

/** A tensor opens one brace and two brackets: far more of them would only blow up the parser's memory. */
function checkBrackets(bytes: Uint8Array, fail: Fail): void {
  const limit = 3 * (MAX_TENSORS + 2)
  let open = 0
  for (let i = 0; i < bytes.length; i++) if (bytes[i] === 0x7b || bytes[i] === 0x5b) open++
  if (open > limit)
    throw fail(`its header opens ${open} brackets, too many for the ${MAX_TENSORS} tensors allowed`)
}

function readMetadata(fields: Map<string, unknown>, fail: Fail): Record<string, string> {
  const metadata = fields.get('__metadata__') ?? {}
  fields.delete('__metadata__')
  if (!isObject(metadata)) throw fail('__metadata__ is not an object')
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== 'string')
      throw fail(`__metadata__ has a ${typeof value} under ${quote(key)}, not a string`)
  }
  return metadata as Record<string, string>
}

function readEntry(name: string, value: unknown, file: string, dataStart: number, fail: Fail): TensorEntry {
  const wrong = (problem: string) => fail(`tensor ${quote(name)}: ${problem}`)
  if (!isObject(value)) throw wrong('its entry is not an object')
  const { dtype, shape, data_offsets: offsets } = value
  if (!isDType(dtype)) throw wrong(`unknown dtype ${quote(dtype)}`)
  if (!Array.isArray(shape) || !shape.every(isSize)) {
    throw wrong(`shape ${quote(shape)} is not a list of non-negative integers`)
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw wrong(`data_offsets ${quote(offsets)} is not a pair of non-negative integers`)
  }
  const [begin, end] = offsets as [number, number]
  if (end < begin) throw wrong(`data_offsets [${begin}, ${end}] end before they begin`)
  const byteLength = tensorBytes(dtype, shape)
  if (byteLength === undefined)
    throw wrong(`shape ${quote(shape)} of ${dtype} has no whole, countable size in bytes`)
  if (byteLength !== end - begin) {
    throw wrong(
      `shape ${quote(shape)} of ${dtype} takes ${byteLength} bytes, but data_offsets cover ${end - begin}`,
    )
  }
  return { name, dtype, shape, file, offset: dataStart + begin, byteLength }
}

/** Bytes of a tensor, or undefined when they overflow or don't come out whole. */
export function tensorBytes(dtype: SafetensorsDType, shape: readonly number[]): number | undefined {
  let bits: number = BITS[dtype]
  for (const dim of shape) {
    bits *= dim
    if (!Number.isSafeInteger(bits)) return undefined
  }
  return bits % 8 === 0 ? bits / 8 : undefined
}

/** Tensors must cover the data exactly: from its first byte to the file's last, each byte once. */
function checkLayout(entries: readonly TensorEntry[], dataStart: number, fileSize: number, fail: Fail): void {
  const inOrder = [...entries].sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength)
  let position = dataStart
  for (const { name, offset, byteLength } of inOrder) {
    if (offset !== position) {
      const problem = offset < position ? 'overlaps the one before it' : 'leaves a gap before it'
      throw fail(`tensor ${quote(name)} at byte ${offset} ${problem}, which ends at ${position}`)
    }
    position = offset + byteLength
    if (position > fileSize) {
      throw fail(
        `tensor ${quote(name)} ends at byte ${position}, but the file has only ${fileSize}; it is cut short`,
      )
    }
  }
  if (position !== fileSize) {
    throw fail(`its tensors end at byte ${position}, but the file has ${fileSize}`)
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isDType(value: unknown): value is SafetensorsDType {
  return typeof value === 'string' && Object.hasOwn(BITS, value)
}

/** JSON for a message, cut to a length that fits one. */
function quote(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined'
  return text.length > 120 ? `${text.slice(0, 117)}...` : text
}
