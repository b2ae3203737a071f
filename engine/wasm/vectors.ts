import {
  type Code,
  f32Const,
  f32x4Abs,
  f32x4Div,
  f32x4Equal,
  f32x4Splat,
  f64Const,
  f64x2Div,
  f64x2Equal,
  f64x2Promote,
  f64x2Splat,
  get,
  i8x16Shuffle,
  i8x16Splat,
  i32Add,
  i32Const,
  i32Or,
  i32ShiftLeft,
  i32TrailingZeros,
  i32x4Signs,
  i32x4Splat,
  i32x4TruncateDoubles,
  set,
  v128AndNot,
  v128Load,
  v128LoadSplat,
} from './assemble.ts'

/** A vector of four equal numbers. */
export const splat = (value: number): Code => [f32Const(value), f32x4Splat]

/** A vector of four equal int32. */
export const splatInt = (value: number): Code => [i32Const(value), i32x4Splat]

/** A vector of sixteen equal bytes. */
export const splatBytes = (value: number): Code => [i32Const(value), i8x16Splat]

/** A vector of two equal float64 numbers. */
export const splatDouble = (value: number): Code => [f64Const(value), f64x2Splat]

/** The last two float32 of a local as float64. */
export const promoteHigh = (local: number): Code => [
  [
    get(local),
    get(local),
    i8x16Shuffle([8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7]),
    f64x2Promote,
  ],
]

/** Four whole numbers from two vectors of two float64, without their fractions. */
export const truncateDoubles = (first: Code, second: Code): Code => [
  [first, i32x4TruncateDoubles, second, i32x4TruncateDoubles],
  i8x16Shuffle([0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]),
]

/** 1 / x of a local's two float64 numbers, 0 where x is 0. */
export const inverseDouble = (x: number): Code => [
  [splatDouble(1), get(x), f64x2Div, get(x), splatDouble(0), f64x2Equal, v128AndNot],
]

/** 1 / x of a local's numbers, 0 where x is 0. */
export const inverse = (x: number): Code => [
  [splat(1), get(x), f32x4Div, get(x), splat(0), f32x4Equal, v128AndNot],
]

/** Joins the four numbers of a local by an operation; the result stands in all places. */
export const spread = (local: number, join: Code): Code =>
  [
    [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7],
    [4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11],
  ].map((order) => [get(local), get(local), get(local), i8x16Shuffle(order), join, set(local)])

/**
 * The first number whose magnitude is that in the local `largest`, of `count` vectors at most eight at `values`; in all places,
 * on the stack. A bit for each number tells which it is.
 */
export const firstOfMagnitude = (values: number, largest: number, count: number): Code => [
  [get(values), i32Const(0)],
  Array.from({ length: count }, (_, i) => [
    [get(values), v128Load(16 * i), f32x4Abs, get(largest), f32x4Equal, i32x4Signs],
    [i32Const(4 * i), i32ShiftLeft, i32Or],
  ]),
  [i32TrailingZeros, i32Const(2), i32ShiftLeft, i32Add, v128LoadSplat()],
]

/** 0, 1, … below `count`: the lanes of a shuffle. */
export const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i)
