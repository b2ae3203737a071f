import {
  type Code,
  f32x4Abs,
  f32x4Add,
  f32x4LessThan,
  f32x4Sub,
  get,
  i32Const,
  i32x4Add,
  i32x4Min,
  i32x4ShiftRight,
  i32x4Sub,
  set,
  v128And,
  v128AndNot,
  v128Or,
  v128Select,
} from './assemble.ts'
import { splat, splatInt } from './vectors.ts'

const signOf = (x: number): Code => [get(x), splatInt(-0x80000000), v128And]
/** The bits of `size` with the lower 13 of the mantissa rounded into the others, ties to even; those 13 are not cleared. */
const roundedBits = (size: number): Code => [
  [
    get(size),
    get(size),
    i32Const(13),
    i32x4ShiftRight,
    splatInt(1),
    v128And,
    i32x4Add,
    splatInt(0xfff),
    i32x4Add,
  ],
]
/** Below 2⁻¹⁴ float16 has steps of 2⁻²⁴, which is what float32 has from 0.5 to 1. */
const isSubnormal = (size: number): Code => [get(size), splat(2 ** -14), f32x4LessThan]

/**
 * The float16 bits of a local's float32 numbers, to nearest, ties to even, each in 32 bits; on the stack. Above 2⁻¹⁴ the
 * mantissa loses 13 bits and the exponent 112; below, x + 0.5 counts the steps behind the point. `size` is overwritten.
 */
export const float16Bits = (x: number, size: number): Code => [
  [get(x), f32x4Abs, set(size)],
  [get(size), splat(0.5), f32x4Add, splatInt(0x3f000000), i32x4Sub],
  [
    roundedBits(size),
    i32Const(13),
    i32x4ShiftRight,
    splatInt(112 << 10),
    i32x4Sub,
    splatInt(0x7c00),
    i32x4Min,
  ],
  [isSubnormal(size), v128Select],
  [get(x), i32Const(16), i32x4ShiftRight, splatInt(0x8000), v128And, v128Or],
]

/** A local's numbers rounded to float16 as float16Bits does, still as float32 (and not infinite beyond float16's range). */
export const toFloat16 = (x: number, size: number): Code => [
  [get(x), f32x4Abs, set(size)],
  [get(size), splat(0.5), f32x4Add, splat(0.5), f32x4Sub],
  [roundedBits(size), splatInt(0x1fff), v128AndNot],
  [isSubnormal(size), v128Select, signOf(x), v128Or, set(x)],
]
