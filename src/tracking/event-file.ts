/**
 * TensorBoard's event files, as far as scalars need them. A file is a sequence of records in TFRecord framing
 * (tensorflow/core/lib/io/record_writer.h): the length as uint64, its masked CRC-32C, the data, the data's masked CRC-32C,
 * all little-endian. Each record is an Event message (tensorflow/core/util/event.proto), of which these fields occur:
 *
 *   Event    1 wall_time double · 2 step int64 · 3 file_version string · 5 summary · 7 session_log
 *   Summary  1 value (repeated): 1 tag string · 2 simple_value float
 *   SessionLog  1 status enum, where START is 1
 */

/** A point of several curves. */
export interface ScalarEvent {
  /** Seconds since 1970. */
  wallTime: number
  step: number
  values: Readonly<Record<string, number>>
}

/** The record that a file begins with. */
export function encodeFileVersion(wallTime: number): Uint8Array {
  return record([...doubleField(1, wallTime), ...bytesField(3, utf8('brain.Event:2'))])
}

/** Says that a run begins anew at `step`: readers drop what earlier files have from there on. */
export function encodeSessionStart(wallTime: number, step: number): Uint8Array {
  const status = varintField(1, 1)
  return record([...doubleField(1, wallTime), ...varintField(2, step), ...bytesField(7, status)])
}

export function encodeScalars({ wallTime, step, values }: ScalarEvent): Uint8Array {
  const summary = Object.entries(values).flatMap(([tag, value]) =>
    bytesField(1, [...bytesField(1, utf8(tag)), ...floatField(2, value)]),
  )
  return record([...doubleField(1, wallTime), ...varintField(2, step), ...bytesField(5, summary)])
}

/** A record in TFRecord framing. */
function record(data: readonly number[]): Uint8Array {
  const bytes = Uint8Array.from(data)
  const framed = new Uint8Array(bytes.length + 16)
  const view = new DataView(framed.buffer)
  view.setBigUint64(0, BigInt(bytes.length), true)
  view.setUint32(8, maskedCrc(framed.subarray(0, 8)), true)
  framed.set(bytes, 12)
  view.setUint32(12 + bytes.length, maskedCrc(bytes), true)
  return framed
}

/** CRC-32C (Castagnoli), bit-reversed polynomial 0x82f63b78. */
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  return crc
})

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 0xff]!
  return (crc ^ 0xffffffff) >>> 0
}

/** A CRC of data that itself holds CRCs is rotated by 15 bits and shifted by a constant (tensorflow/core/lib/hash/crc32c.h). */
function maskedCrc(bytes: Uint8Array): number {
  const crc = crc32c(bytes)
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
}

// Protocol Buffers: a field is its number and wire type as a varint, then its value.

function varint(value: number): number[] {
  const bytes: number[] = []
  let rest = BigInt(value)
  do {
    const low = Number(rest & 0x7fn)
    rest >>= 7n
    bytes.push(rest > 0n ? low | 0x80 : low)
  } while (rest > 0n)
  return bytes
}

function varintField(field: number, value: number): number[] {
  return [...varint(field << 3), ...varint(value)]
}

function doubleField(field: number, value: number): number[] {
  return [...varint((field << 3) | 1), ...new Uint8Array(Float64Array.of(value).buffer)]
}

function bytesField(field: number, value: readonly number[]): number[] {
  return [...varint((field << 3) | 2), ...varint(value.length), ...value]
}

function floatField(field: number, value: number): number[] {
  return [...varint((field << 3) | 5), ...new Uint8Array(Float32Array.of(value).buffer)]
}

function utf8(text: string): number[] {
  return [...new TextEncoder().encode(text)]
}
