import type { IntBlockOptions, IntBlocks } from '../packed/int-blocks.ts'
import {
  advance,
  type Code,
  f32x4Demote,
  f32x4Div,
  f32x4Max,
  f32x4Min,
  f32x4Sub,
  f64x2Add,
  f64x2Convert,
  f64x2Div,
  f64x2Floor,
  f64x2Mul,
  f64x2Promote,
  f64x2Sub,
  get,
  i8x16Min,
  i8x16Narrow,
  i8x16ShiftLeft,
  i8x16Shuffle,
  i16x8NarrowSigned,
  i32Add,
  i32Const,
  i32Store,
  i32Store8,
  i32x4First,
  i32x4TruncateDoubles,
  repeatBelow,
  set,
  v128Load,
  v128Or,
  v128Store,
  type WasmFunction,
} from '../wasm/assemble.ts'
import { compileWasm, reserve } from '../wasm/instance.ts'
import {
  inverseDouble,
  promoteHigh,
  splat,
  splatBytes,
  splatDouble,
  spread,
  truncateDoubles,
  upTo,
} from '../wasm/vectors.ts'

/** Weights that are rounded in one step; blocks are whole steps. */
export const STEP = 32

const [EVEN, ODD] = [0, 1].map((first) => i8x16Shuffle(upTo(16).map((i) => 2 * i + first)))

/**
 * Rounds blocks of `blockBytes` bytes of float32 at `values` up to `end` to packed `codes`, `scales` and a byte for each zero point,
 * as round-int-blocks.ts says; in float64, two weights at a time.
 */
const roundBlocks = (bits: 4 | 8, symmetric: boolean): WasmFunction => ({
  name: nameOf(bits, symmetric),
  parameters: 6,
  returns: false,
  integers: 2,
  vectors: 8,
  body: (() => {
    const [values, end, blockBytes, codes, scales, zeros, at, blockEnd] = [0, 1, 2, 3, 4, 5, 6, 7]
    const [low, high, scale, wide, inverse, zero, x, first] = [8, 9, 10, 11, 12, 13, 14, 15]
    const highest = 2 ** bits - 1
    const middle = 2 ** (bits - 1)
    const range: Code = [
      [splat(0), set(low), splat(0), set(high), get(values), set(at)],
      repeatBelow(at, blockEnd, [
        [get(low), get(at), v128Load(), f32x4Min, set(low)],
        [get(high), get(at), v128Load(), f32x4Max, set(high)],
        advance(at, 16),
      ]),
      [spread(low, f32x4Min), spread(high, f32x4Max)],
    ]
    const symmetricGrid: Code = [
      [splat(0), get(low), f32x4Sub, get(high), f32x4Max, splat(middle - 1), f32x4Div, set(scale)],
      [get(scale), f64x2Promote, set(wide), splatDouble(middle), set(zero)],
    ]
    const asymmetricGrid: Code = [
      [get(high), f64x2Promote, get(low), f64x2Promote, f64x2Sub, splatDouble(highest), f64x2Div],
      [f32x4Demote, set(scale), get(scale), f64x2Promote, set(wide)],
      // Of nothing but zeros 0 / 0, which becomes zero point 0.
      [splatDouble(0), get(low), f64x2Promote, f64x2Sub, get(wide), f64x2Div, splatDouble(0.5), f64x2Add],
      [f64x2Floor, i32x4TruncateDoubles, f64x2Convert, set(zero)],
    ]
    const code = (half: Code): Code => [half, get(inverse), f64x2Mul, get(zero), f64x2Add]
    const four = (i: number): Code => [
      [get(values), v128Load(16 * i), set(x)],
      truncateDoubles(code([get(x), f64x2Promote]), code(promoteHigh(x))),
    ]
    const sixteen = (i: number): Code => [
      [four(4 * i), four(4 * i + 1), i16x8NarrowSigned, four(4 * i + 2), four(4 * i + 3), i16x8NarrowSigned],
      [i8x16Narrow, splatBytes(highest), i8x16Min],
    ]
    const store: Code =
      bits === 8
        ? [get(codes), sixteen(0), v128Store(), get(codes), sixteen(1), v128Store(16)]
        : [
            [sixteen(0), set(first), sixteen(1), set(x), get(codes), get(first), get(x), EVEN!],
            [get(first), get(x), ODD!, i32Const(4), i8x16ShiftLeft, v128Or, v128Store()],
          ]
    return repeatBelow(values, end, [
      [get(values), get(blockBytes), i32Add, set(blockEnd)],
      [range, symmetric ? symmetricGrid : asymmetricGrid],
      [get(scales), get(scale), i32x4First, i32Store(), get(zeros)],
      [get(zero), i32x4TruncateDoubles, i32x4First, i32Store8()],
      [inverseDouble(wide), set(inverse), get(zero), splatDouble(0.5), f64x2Add, set(zero)],
      repeatBelow(values, blockEnd, [store, advance(values, 4 * STEP), advance(codes, (STEP * bits) / 8)]),
      [advance(scales, 4), advance(zeros, 1)],
    ])
  })(),
})

type Round = (
  values: number,
  end: number,
  blockBytes: number,
  codes: number,
  scales: number,
  zeros: number,
) => void

const nameOf = (bits: 4 | 8, symmetric: boolean) => `round${bits}${symmetric ? 'Symmetric' : 'Asymmetric'}`

const instantiate = compileWasm<Record<string, Round>>(
  ([4, 8] as const).flatMap((bits) => [true, false].map((symmetric) => roundBlocks(bits, symmetric))),
)
let kernel: ReturnType<typeof instantiate> | undefined

/** Weights that the kernel's memory takes at a time, unless one row is longer; they stay in the cache. */
const PIECE = 32 * 1024

/** Rounds a matrix whose columns and blocks are whole steps; of `zeros` each gets a byte of its own. */
export function roundMatrix(
  values: Float32Array,
  { bits, rows, columns, blockSize, symmetric }: IntBlockOptions,
  { codes, scales, zeros }: Pick<IntBlocks, 'codes' | 'scales' | 'zeros'>,
): void {
  kernel ??= instantiate()
  const atOnce = Math.max(1, Math.floor(PIECE / columns))
  const perRow = Math.ceil(columns / blockSize)
  const at = { codes: 4 * atOnce * columns, scales: 5 * atOnce * columns, zeros: 0 }
  at.zeros = at.scales + 4 * atOnce * perRow
  reserve(kernel.memory, at.zeros + atOnce * perRow)
  const { buffer } = kernel.memory
  const round = kernel[nameOf(bits, symmetric)]!
  /** `count` weights from `first` on, in blocks of `size`; `block` is the first one's number. */
  const run = (first: number, count: number, size: number, block: number) => {
    if (count === 0) return
    const end = 4 * (first + count)
    round(4 * first, end, 4 * size, at.codes + (first * bits) / 8, at.scales + 4 * block, at.zeros + block)
  }
  for (let row = 0; row < rows; row += atOnce) {
    const count = Math.min(atOnce, rows - row)
    new Float32Array(buffer, 0, count * columns).set(values.subarray(row * columns, (row + count) * columns))
    // Rows of whole blocks follow one another like one long row.
    const [lines, length] = columns % blockSize === 0 ? [1, count * columns] : [count, columns]
    const rest = length % blockSize
    const blocks = Math.ceil(length / blockSize)
    for (let line = 0; line < lines; line++) {
      run(line * length, length - rest, blockSize, line * blocks)
      run((line + 1) * length - rest, rest, rest, (line + 1) * blocks - 1)
    }
    const packed = new Uint8Array(buffer, at.codes, (count * columns * bits) / 8)
    codes.set(packed, (row * columns * bits) / 8)
    scales.set(new Float32Array(buffer, at.scales, count * perRow), row * perRow)
    zeros.set(new Uint8Array(buffer, at.zeros, count * perRow), row * perRow)
  }
}
