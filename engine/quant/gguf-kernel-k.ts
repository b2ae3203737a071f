import {
  advance,
  type Code,
  f32x4Abs,
  f32x4Add,
  f32x4Div,
  f32x4LessThan,
  f32x4Max,
  f32x4Min,
  f32x4Mul,
  f32x4Nearest,
  f32x4Sqrt,
  f32x4Sub,
  get,
  i8x16Shuffle,
  repeatBelow,
  set,
  v128And,
  v128Load,
  v128LoadSplat,
  v128Select,
  v128Store,
  type WasmFunction,
} from '../wasm/assemble.ts'
import { compileWasm, reserve } from '../wasm/instance.ts'
import { splat, spread } from '../wasm/vectors.ts'
import { packQ4K, packQ6K, SMALLEST } from './gguf-pack-k.ts'

const addTo = (sum: number, term: Code): Code => [get(sum), term, f32x4Add, set(sum)]
const product = (...factors: number[]): Code =>
  factors.map((local, i) => (i === 0 ? get(local) : [get(local), f32x4Mul]))
/** local = mask ? value : local */
const replaceWhere = (mask: number, local: number, value: number): Code => [
  [get(value), get(local), get(mask), v128Select, set(local)],
]

/** a, b, a, b of two vectors of equal numbers a and b. */
const PAIR = i8x16Shuffle([0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27])

const GROUP = [0, 1, 2, 3, 4, 5, 6, 7]

// Locals of fitWithMinimum.
const [VALUES, END, OUT, LEVELS, STEPS, STEPS_END, STEP] = [0, 1, 2, 3, 4, 5, 6]
const [LOW, HIGH, RMS, X, Q, W, WQ, ERROR, BEST, MASK] = [7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
const [SUM_W, SUM_WX, SUM_WQ, SUM_WQQ, SUM_WQX] = [17, 18, 19, 20, 21]
const [SCALE, MINIMUM, BEST_SCALE, BEST_MINIMUM, DETERMINANT, INVERSE] = [22, 23, 24, 25, 26, 27]

const clear = (...locals: number[]): Code => locals.map((local) => [splat(0), set(local)])
const loadX = (i: number): Code => [get(VALUES), v128Load(16 * i), set(X)]
const loadW = (i: number): Code => [get(LEVELS), v128Load(128 + 16 * i), set(W)]

/** A group's range, its weights w = rms(x) + |x|, and their sums. */
const weigh: Code = [
  clear(LOW, RMS, SUM_W, SUM_WX),
  [get(VALUES), v128Load(), set(HIGH)],
  GROUP.map((i) => [
    loadX(i),
    [get(LOW), get(X), f32x4Min, set(LOW), get(HIGH), get(X), f32x4Max, set(HIGH)],
    addTo(RMS, product(X, X)),
  ]),
  [spread(LOW, f32x4Min), spread(HIGH, f32x4Max), spread(RMS, f32x4Add)],
  [get(RMS), splat(1 / 32), f32x4Mul, f32x4Sqrt, set(RMS)],
  GROUP.map((i) => [
    [loadX(i), get(RMS), get(X), f32x4Abs, f32x4Add, set(W)],
    [get(LEVELS), get(W), v128Store(128 + 16 * i)],
    [addTo(SUM_W, get(W)), addTo(SUM_WX, product(W, X))],
  ]),
  [spread(SUM_W, f32x4Add), spread(SUM_WX, f32x4Add)],
]

/** The levels that the trial range in steps at STEP gives, and their sums. */
const takeLevels: Code = [
  clear(SUM_WQ, SUM_WQQ, SUM_WQX),
  [get(STEP), v128LoadSplat(), get(HIGH), get(LOW), f32x4Sub, f32x4Div, set(INVERSE)],
  GROUP.map((i) => [
    [loadX(i), loadW(i), get(INVERSE), get(X), get(LOW), f32x4Sub, f32x4Mul, f32x4Nearest],
    [splat(0), f32x4Max, splat(15), f32x4Min, set(Q)],
    [get(LEVELS), get(Q), v128Store(16 * i), product(W, Q), set(WQ)],
    [addTo(SUM_WQ, get(WQ)), addTo(SUM_WQQ, product(WQ, Q)), addTo(SUM_WQX, product(WQ, X))],
  ]),
  [spread(SUM_WQ, f32x4Add), spread(SUM_WQQ, f32x4Add), spread(SUM_WQX, f32x4Add)],
]

/** Scale and minimum of the plain range. */
const takePlain: Code = [
  [get(HIGH), get(LOW), f32x4Sub, splat(15), f32x4Div, set(SCALE)],
  [splat(0), get(LOW), f32x4Sub, set(MINIMUM)],
]

/** Scale and minimum that the normal equations give for the levels. */
const solve: Code = [
  [product(SUM_W, SUM_WQQ), product(SUM_WQ, SUM_WQ), f32x4Sub, set(DETERMINANT)],
  [product(SUM_W, SUM_WQX), product(SUM_WX, SUM_WQ), f32x4Sub, get(DETERMINANT), f32x4Div, set(SCALE)],
  [product(SUM_WQ, SUM_WQX), product(SUM_WQQ, SUM_WX), f32x4Sub, get(DETERMINANT), f32x4Div, set(MINIMUM)],
  // A negative minimum is none; the scale alone is then the best one.
  [get(MINIMUM), splat(0), f32x4LessThan, set(MASK)],
  [get(SUM_WQX), get(SUM_WQQ), f32x4Div, get(SCALE), get(MASK), v128Select, set(SCALE)],
  [get(MINIMUM), splat(0), f32x4Max, set(MINIMUM)],
]

const keepIfBetter: Code = [
  clear(ERROR),
  GROUP.map((i) => [
    [loadX(i), loadW(i), get(LEVELS), v128Load(16 * i), get(SCALE), f32x4Mul],
    [get(MINIMUM), f32x4Sub, get(X), f32x4Sub, set(Q), addTo(ERROR, product(Q, Q, W))],
  ]),
  spread(ERROR, f32x4Add),
  [get(ERROR), get(BEST), f32x4LessThan, set(MASK)],
  [replaceWhere(MASK, BEST, ERROR), replaceWhere(MASK, BEST_SCALE, SCALE)],
  replaceWhere(MASK, BEST_MINIMUM, MINIMUM),
]

/**
 * Scale s ≥ 0 and minimum m ≥ 0 that make x ≈ s · q − m for groups of 32 weights at `values` up to `end`, as scale,
 * minimum, scale, minimum at `out`. Starts from the plain range, then tries slightly other steps; for the levels q that a step
 * gives, the best (s, m) under weights w = rms(x) + |x| solve the normal equations
 *   s · Σwq² − m · Σwq = Σwqx,   s · Σwq − m · Σw = Σwx. `levels` has room for one group's levels and weights; `steps`, up to `stepsEnd`,
 * are the trial ranges in steps, of which the first is the plain one.
 */
const fitWithMinimum: WasmFunction = {
  name: 'fitWithMinimum',
  parameters: 6,
  returns: false,
  integers: 1,
  vectors: 21,
  body: repeatBelow(VALUES, END, [
    [weigh, splat(Number.POSITIVE_INFINITY), set(BEST), clear(BEST_SCALE)],
    [splat(0), get(LOW), f32x4Sub, set(BEST_MINIMUM)],
    [get(STEPS), set(STEP), takeLevels, takePlain, keepIfBetter, advance(STEP, 4)],
    // Without a range, or without two levels, comparisons with NaN are false and nothing replaces the start.
    repeatBelow(STEP, STEPS_END, [takeLevels, solve, keepIfBetter, advance(STEP, 4)]),
    [get(OUT), get(BEST_SCALE), get(BEST_MINIMUM), PAIR, v128Store()],
    [advance(VALUES, 128), advance(OUT, 16)],
  ]),
}

const HALF_GROUP = [0, 1, 2, 3]

/**
 * Signed scale s that makes x ≈ s · q with q in −32…31 for groups of 16 weights at `values` up to `end`, at `out` (three
 * numbers behind the last are overwritten). For the levels of a trial step, the best s under weights x² is Σx²·xq / Σx²·q², and the error
 * falls with (Σx²·xq)² / Σx²·q², so the step with the largest is taken. Weights are taken as parts of the one of largest magnitude, so that no square underflows.
 */
const fitSymmetric: WasmFunction = {
  name: 'fitSymmetric',
  parameters: 5,
  returns: false,
  integers: 1,
  vectors: 14,
  body: (() => {
    const [values, end, out, steps, stepsEnd, step] = [0, 1, 2, 3, 4, 5]
    const [low, high, extreme, best, scale, q, weight, sumLX, sumLL, mask] = [
      6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    ]
    const y = (i: number) => 16 + i
    const better = (merit: Code): Code => [merit, set(q), get(best), get(q), f32x4LessThan, set(mask)]
    return repeatBelow(values, end, [
      [get(values), v128Load(), set(low), get(low), set(high)],
      HALF_GROUP.slice(1).map((i) => [
        [get(low), get(values), v128Load(16 * i), f32x4Min, set(low)],
        [get(high), get(values), v128Load(16 * i), f32x4Max, set(high)],
      ]),
      [spread(low, f32x4Min), spread(high, f32x4Max)],
      // The end of the range that is farther from 0.
      [get(low), get(high), get(high), splat(0), get(low), f32x4Sub, f32x4LessThan, v128Select, set(extreme)],
      HALF_GROUP.map((i) => [get(values), v128Load(16 * i), get(extreme), f32x4Div, set(y(i))]),
      [splat(0), set(best), splat(0), set(scale), get(steps), set(step)],
      repeatBelow(step, stepsEnd, [
        [splat(0), set(sumLX), splat(0), set(sumLL)],
        HALF_GROUP.map((i) => [
          [get(step), v128LoadSplat(), get(y(i)), f32x4Mul, f32x4Nearest],
          [splat(-32), f32x4Max, splat(31), f32x4Min, set(q), product(y(i), y(i), q), set(weight)],
          [addTo(sumLX, product(weight, y(i))), addTo(sumLL, product(weight, q))],
        ]),
        [spread(sumLX, f32x4Add), spread(sumLL, f32x4Add)],
        better([product(sumLX, sumLX), get(sumLL), f32x4Div]),
        replaceWhere(mask, best, q),
        [get(sumLX), get(sumLL), f32x4Div, set(q), replaceWhere(mask, scale, q)],
        advance(step, 4),
      ]),
      // Of nothing but zeros there is no part.
      [get(out), product(scale, extreme), splat(SMALLEST), get(extreme), f32x4Abs, f32x4LessThan, v128And],
      v128Store(),
      [advance(values, 64), advance(out, 4)],
    ])
  })(),
}

interface Functions {
  fitWithMinimum(
    values: number,
    end: number,
    out: number,
    levels: number,
    steps: number,
    stepsEnd: number,
  ): void
  fitSymmetric(values: number, end: number, out: number, steps: number, stepsEnd: number): void
}

type Pack = (values: number, end: number, fitted: number, target: number, scratch: number) => void

const instantiate = compileWasm<Functions & { packQ4K: Pack; packQ6K: Pack }>([
  fitWithMinimum,
  fitSymmetric,
  packQ4K,
  packQ6K,
])
let kernel: ReturnType<typeof instantiate> | undefined

/** Weights that the kernel's memory takes at a time; they stay in the cache. */
const PIECE = 32 * 1024
/** Weights of a super-block. */
const SIZE = 256
/** Where the kernel's memory keeps what; nothing packed is larger than half of what it stands for. */
const AT = {
  steps: 0,
  scratch: 256,
  values: 512,
  fitted: 512 + 4 * PIECE,
  target: 1024 + 5 * PIECE,
  end: 1024 + 7 * PIECE,
}
/** Ranges in steps: the plain one, and slightly other ones. */
const RANGES = Float32Array.from([15, ...Array.from({ length: 21 }, (_, i) => 14 + 0.1 * i)])
/** The code of the weight of largest magnitude, before it is rounded. */
const ENDS = Float32Array.from({ length: 19 }, (_, i) => -(32 + 0.1 * (i - 9)))

/** Packs whole super-blocks as Q4_K. */
export function packWithMinima(values: Float32Array, target: Uint8Array): void {
  inPieces(values, RANGES, 144, target, (end) => {
    const { steps, scratch, fitted } = AT
    kernel!.fitWithMinimum(AT.values, end, fitted, scratch, steps, steps + RANGES.byteLength)
    kernel!.packQ4K(AT.values, end, fitted, AT.target, scratch)
  })
}

/** Packs whole super-blocks as Q6_K. */
export function packSymmetric(values: Float32Array, target: Uint8Array): void {
  inPieces(values, ENDS, 210, target, (end) => {
    const { steps, scratch, fitted } = AT
    kernel!.fitSymmetric(AT.values, end, fitted, steps, steps + ENDS.byteLength)
    kernel!.packQ6K(AT.values, end, fitted, AT.target, scratch)
  })
}

/** Brings the values through the kernel's memory, piece by piece; `work` gets the end of a piece there. */
function inPieces(
  values: Float32Array,
  steps: Float32Array,
  blockBytes: number,
  target: Uint8Array,
  work: (end: number) => void,
): void {
  kernel ??= instantiate()
  reserve(kernel.memory, AT.end)
  const { buffer } = kernel.memory
  new Float32Array(buffer, AT.steps, steps.length).set(steps)
  for (let from = 0, to = 0; from < values.length; from += PIECE) {
    const piece = values.subarray(from, from + PIECE)
    const bytes = (piece.length / SIZE) * blockBytes
    new Float32Array(buffer, AT.values, piece.length).set(piece)
    work(AT.values + piece.byteLength)
    target.set(new Uint8Array(buffer, AT.target, bytes), to)
    to += bytes
  }
}
