import {
  type Code,
  f32Const,
  f32x4Div,
  f32x4Equal,
  f32x4Splat,
  get,
  i8x16Shuffle,
  set,
  v128AndNot,
} from './assemble.ts'

/** A vector of four equal numbers. */
export const splat = (value: number): Code => [f32Const(value), f32x4Splat]

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
