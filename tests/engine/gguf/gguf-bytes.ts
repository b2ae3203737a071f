/** A metadata value with its type as GGUF numbers it. */
export type Value =
  | { u32: number }
  | { u64: bigint }
  | { f32: number }
  | { flag: boolean }
  | { text: string }
  | { texts: string[] }
  | { f32s: number[] }
  | { i32s: number[] }

export interface TensorBytes {
  name: string
  /** Row-major, as Hugging Face writes it. */
  shape: number[]
  /** ggml's number of the type; 0 is F32. */
  type?: number
  bytes: Uint8Array
}

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

export const u64 = (value: number | bigint) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

export const text = (value: string) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)])

const floats = (values: number[]) => Buffer.from(Float32Array.from(values).buffer)

function valueBytes(value: Value): Uint8Array {
  if ('u32' in value) return Buffer.concat([u32(4), u32(value.u32)])
  if ('u64' in value) return Buffer.concat([u32(10), u64(value.u64)])
  if ('f32' in value) return Buffer.concat([u32(6), floats([value.f32])])
  if ('flag' in value) return Buffer.concat([u32(7), Buffer.of(value.flag ? 1 : 0)])
  if ('text' in value) return Buffer.concat([u32(8), text(value.text)])
  const list = (type: number, count: number, elements: Uint8Array) =>
    Buffer.concat([u32(9), u32(type), u64(count), elements])
  if ('texts' in value) return list(8, value.texts.length, Buffer.concat(value.texts.map(text)))
  if ('f32s' in value) return list(6, value.f32s.length, floats(value.f32s))
  return list(5, value.i32s.length, Buffer.from(Int32Array.from(value.i32s).buffer))
}

const ALIGNMENT = 32

/** A GGUF file of version 3. */
export function ggufBytes(metadata: Record<string, Value>, tensors: TensorBytes[]): Buffer {
  const parts: Uint8Array[] = [
    Buffer.from('GGUF'),
    u32(3),
    u64(tensors.length),
    u64(Object.keys(metadata).length),
  ]
  for (const [key, value] of Object.entries(metadata)) parts.push(text(key), valueBytes(value))
  let offset = 0
  for (const { name, shape, type = 0, bytes } of tensors) {
    parts.push(text(name), u32(shape.length), ...shape.toReversed().map(u64), u32(type), u64(offset))
    offset = align(offset + bytes.length)
  }
  const header = Buffer.concat(parts)
  const data = tensors.map(({ bytes }) =>
    Buffer.concat([bytes, Buffer.alloc(align(bytes.length) - bytes.length)]),
  )
  return Buffer.concat([header, Buffer.alloc(align(header.length) - header.length), ...data])
}

const align = (length: number) => Math.ceil(length / ALIGNMENT) * ALIGNMENT
