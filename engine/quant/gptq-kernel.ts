import {
  advance,
  type Code,
  f32x4Add,
  f32x4Div,
  f32x4Equal,
  f32x4LessThan,
  f32x4Max,
  f32x4Min,
  f32x4Mul,
  f32x4Nearest,
  f32x4Sub,
  get,
  i8x16Narrow,
  i16x8Narrow,
  i32x4Truncate,
  repeatBelow,
  set,
  v128AndNot,
  v128Load,
  v128LoadSplat,
  v128Select,
  v128Store,
  type WasmFunction,
  whileBelow,
} from '../wasm/assemble.ts'
import { toFloat16 } from '../wasm/float16.ts'
import { inverse, splat } from '../wasm/vectors.ts'

/** Rows of a matrix that go through together: four vectors, whose sums stay in registers. */
export const STRIP = 16
/** Bytes of one column of a strip. */
export const COLUMN_BYTES = 4 * STRIP
const VECTORS = [0, 1, 2, 3]

/**
 * out = base + Σ_i u_i · E_i over the columns of the strip at `errors`, up to `end`; `factors` holds the u_i. All of one
 * column are 16 numbers.
 */
export const feed: WasmFunction = {
  name: 'feed',
  parameters: 5,
  returns: false,
  integers: 0,
  vectors: 5,
  body: (() => {
    const [out, base, errors, end, factors, factor] = [0, 1, 2, 3, 4, 5]
    const sum = (i: number) => 6 + i
    return [
      VECTORS.map((i) => [get(base), v128Load(16 * i), set(sum(i))]),
      whileBelow(errors, end, [
        [get(factors), v128LoadSplat(), set(factor)],
        VECTORS.map((i) => [
          [get(sum(i)), get(factor), get(errors), v128Load(16 * i), f32x4Mul, f32x4Add, set(sum(i))],
        ]),
        advance(errors, COLUMN_BYTES),
        advance(factors, 4),
      ]),
      VECTORS.map((i) => [get(out), get(sum(i)), v128Store(16 * i)]),
    ]
  })(),
}

/** A code 0…highest: round(value · factor + zero), clamped; on the stack. */
const codeOf = (value: Code, factor: number, zero: number, highest: number): Code => [
  [value, get(factor), f32x4Mul, get(zero), f32x4Add, f32x4Nearest],
  [splat(0), f32x4Max, get(highest), f32x4Min],
]

/**
 * Chooses scale and zero point of four rows' group, whose values stand at `values` (one vector for each column, the next
 * COLUMN_BYTES on) up to `end`. Of the trial scales widest · shrink, with the shrinks at `shrinks` up to `shrinksEnd`, the one
 * that leaves the least Σ_k D_k·(v_k − v̂_k)² is stored at `scale` and `zero`, which start as what an empty group gets.
 * `limits` holds the highest code, then the symmetric zero point (or −1 for asymmetric ones).
 */
export const fit: WasmFunction = {
  name: 'fit',
  parameters: 8,
  returns: false,
  integers: 2,
  vectors: 12,
  body: (() => {
    const [values, end, weights, shrinks, shrinksEnd, scaleAt, zeroAt, limits, at, weightAt] = [
      0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
    ]
    const [low, high, highest, middle, widest, best, scale, factor, zero, loss, scratch, error] = [
      10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    ]
    const asymmetric: Code = [get(middle), splat(0), f32x4LessThan]
    const range: Code = [
      [splat(0), set(low), splat(0), set(high), get(values), set(at)],
      repeatBelow(at, end, [
        [get(low), get(at), v128Load(), f32x4Min, set(low)],
        [get(high), get(at), v128Load(), f32x4Max, set(high)],
        advance(at, COLUMN_BYTES),
      ]),
      // asymmetric: (high − low) / highest; symmetric: max(−low, high) / (middle − 1)
      [get(high), get(low), f32x4Sub, get(highest), f32x4Div],
      [splat(0), get(low), f32x4Sub, get(high), f32x4Max, get(middle), splat(1), f32x4Sub, f32x4Div],
      [asymmetric, v128Select, set(widest)],
    ]
    const trialScale: Code = [
      [get(widest), get(shrinks), v128LoadSplat(), f32x4Mul, set(scale)],
      toFloat16(scale, scratch),
      [inverse(scale), set(factor)],
      [splat(0), get(low), get(shrinks), v128LoadSplat(), f32x4Mul, get(factor), f32x4Mul, f32x4Sub],
      [f32x4Nearest, splat(0), f32x4Max, get(highest), f32x4Min],
      [get(middle), asymmetric, v128Select, set(zero)],
    ]
    const trialLoss: Code = [
      [splat(0), set(loss), get(values), set(at), get(weights), set(weightAt)],
      repeatBelow(at, end, [
        [get(at), v128Load(), codeOf([get(at), v128Load()], factor, zero, highest)],
        [get(zero), f32x4Sub, get(scale), f32x4Mul, f32x4Sub, set(error)],
        [get(loss), get(error), get(error), f32x4Mul, get(weightAt), v128LoadSplat(), f32x4Mul],
        [f32x4Add, set(loss)],
        advance(at, COLUMN_BYTES),
        advance(weightAt, 4),
      ]),
    ]
    const keepBetter = (at: number, value: number): Code => [
      [get(at), get(value), get(at), v128Load(), get(scratch), v128Select, v128Store()],
    ]
    return [
      [get(limits), v128LoadSplat(), set(highest), get(limits), v128LoadSplat(4), set(middle)],
      range,
      [splat(Number.POSITIVE_INFINITY), set(best)],
      repeatBelow(shrinks, shrinksEnd, [
        trialScale,
        trialLoss,
        // A scale of 0 stands for nothing but zeros.
        [get(loss), get(best), f32x4LessThan, get(scale), splat(0), f32x4Equal, v128AndNot, set(scratch)],
        [get(loss), get(best), get(scratch), v128Select, set(best)],
        keepBetter(scaleAt, scale),
        keepBetter(zeroAt, zero),
        advance(shrinks, 4),
      ]),
    ]
  })(),
}

/**
 * Rounds one column of a strip: `wanted` to codes (16 bytes), and w − ŵ to `errors`, with the scales and zero points of the
 * rows. `limits` begins with the highest code.
 */
export const round: WasmFunction = {
  name: 'round',
  parameters: 7,
  returns: false,
  integers: 0,
  vectors: 8,
  body: (() => {
    const [wanted, weights, errors, scales, zeros, codes, limits] = [0, 1, 2, 3, 4, 5, 6]
    const [highest, scale, factor, zero] = [7, 8, 9, 10]
    const code = (i: number) => 11 + i
    return [
      [get(limits), v128LoadSplat(), set(highest)],
      VECTORS.map((i) => [
        [get(scales), v128Load(16 * i), set(scale), get(zeros), v128Load(16 * i), set(zero)],
        [inverse(scale), set(factor)],
        [codeOf([get(wanted), v128Load(16 * i)], factor, zero, highest), set(code(i))],
        [get(errors), get(weights), v128Load(16 * i), get(code(i)), get(zero), f32x4Sub],
        [get(scale), f32x4Mul, f32x4Sub, v128Store(16 * i)],
      ]),
      get(codes),
      [0, 2].map((i) => [[get(code(i)), i32x4Truncate, get(code(i + 1)), i32x4Truncate, i16x8Narrow]]),
      [i8x16Narrow, v128Store()],
    ]
  })(),
}
