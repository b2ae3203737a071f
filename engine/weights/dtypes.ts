import { endianness } from 'node:os'
import { EngineError } from '../errors.ts'
import { widen } from './widen-kernel.ts'

/** Element types that weights may have on disk. */
export type WeightDType = 'float32' | 'float16' | 'bfloat16'

/** Largest finite number of each. */
export const LARGEST: Record<WeightDType, number> = {
  float32: (2 - 2 ** -23) * 2 ** 127,
  float16: 65_504,
  bfloat16: (2 - 2 ** -7) * 2 ** 127,
}

// Casts reinterpret bytes instead of converting number by number; that needs the machine's byte order to be the files'. onnxruntime has no other machines.
if (endianness() !== 'LE') throw new Error('weights are little-endian; big-endian machines are not supported')

/** Narrows float32 to bfloat16 bits, rounding to nearest even; NaN stays NaN, too large numbers become infinite. */
export function float32ToBfloat16(source: Float32Array): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length)
  const target = new Uint16Array(source.length)
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i]!
    // A NaN whose payload sits in the low half would round to infinity: it gets the quiet bit instead.
    target[i] = (x & 0x7fffffff) > 0x7f800000 ? (x >>> 16) | 0x40 : (x + 0x7fff + ((x >>> 16) & 1)) >>> 16
  }
  return target
}

/** The number that float16 bits stand for. */
export function float16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >>> 10) & 0x1f
  const mantissa = bits & 0x3ff
  if (exponent === 0) return sign * mantissa * 2 ** -24
  if (exponent === 0x1f) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15)
}

/** Narrows float32 to float16 bits, rounding to nearest even; NaN stays NaN, above 65,504 becomes infinite. */
export function float32ToFloat16(source: Float32Array): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length)
  const target = new Uint16Array(source.length)
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i]!
    target[i] = ((x >>> 16) & 0x8000) | float16Magnitude(x & 0x7fffffff)
  }
  return target
}

const scalar = new Float32Array(1)
const scalarBits = new Uint32Array(scalar.buffer)

/** Float16 bits of one number, which is first rounded to float32. */
export function float16Bits(value: number): number {
  scalar[0] = value
  const x = scalarBits[0]!
  return ((x >>> 16) & 0x8000) | float16Magnitude(x & 0x7fffffff)
}

/** Float16 bits of the float32 whose bits (sign cleared) are `x`. */
function float16Magnitude(x: number): number {
  if (x > 0x7f800000) return 0x7e00 | ((x >>> 13) & 0x1ff)
  if (x >= 0x47800000) return 0x7c00
  if (x >= 0x38800000) {
    // Normal: rebias the exponent by 15 - 127, drop 13 bits of mantissa. A carry into the exponent is right.
    return (x - 0x38000000 + 0xfff + ((x >>> 13) & 1)) >>> 13
  }
  if (x < 0x33000000) return 0
  // Subnormal: the mantissa with its leading one, in units of 2^-24.
  const shift = 126 - (x >>> 23)
  const mantissa = (x & 0x7fffff) | 0x800000
  const half = (1 << (shift - 1)) - 1
  return (mantissa + half + ((mantissa >>> shift) & 1)) >>> shift
}

/**
 * Widens the raw little-endian bytes of a tensor to float32. The result is a view of `bytes` when they are float32, of
 * `target` where that is given.
 */
export function decodeFloat32(bytes: Uint8Array, dtype: WeightDType, target?: Float32Array): Float32Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice()
  const { buffer, byteOffset, byteLength } = aligned
  if (dtype === 'float32') return new Float32Array(buffer, byteOffset, byteLength / 4)
  const halves = new Uint16Array(buffer, byteOffset, byteLength / 2)
  const values = target ? target.subarray(0, halves.length) : new Float32Array(halves.length)
  widen(halves, dtype, values)
  return values
}

/** Narrows float32 to the raw little-endian bytes of `dtype`. A float32 result shares the memory of `values`. */
export function encodeFloat32(values: Float32Array, dtype: WeightDType): Uint8Array {
  if (dtype === 'float32') return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  const halves = dtype === 'bfloat16' ? float32ToBfloat16(values) : float32ToFloat16(values)
  return new Uint8Array(halves.buffer)
}

/**
 * Checks that values fit a dtype. Infinities and NaN are passed on unless `mustBeFinite` says why they must not be there.
 *
 * @param offset what is added to the index of an element in messages.
 * @throws EngineError `invalid` naming tensor, element and value.
 */
export function checkRange(
  name: string,
  values: Float32Array,
  dtype: WeightDType,
  { mustBeFinite, offset = 0 }: { mustBeFinite?: string; offset?: number } = {},
): void {
  const largest = LARGEST[dtype]
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!
    if (value >= -largest && value <= largest) continue
    if (!Number.isFinite(value)) {
      if (mustBeFinite === undefined) continue
      const message = `${name} comes out as ${value} at element ${offset + i}; ${mustBeFinite}`
      throw new EngineError('invalid', 'weights_not_finite', message)
    }
    const wider = dtype === 'float16' ? 'bfloat16 and float32 hold more' : 'float32 holds more'
    throw new EngineError(
      'invalid',
      'weight_overflow',
      `${name} has ${value} at element ${offset + i}, beyond the largest ${dtype}, ${largest}; ${wider}`,
      { param: 'dtype' },
    )
  }
}
