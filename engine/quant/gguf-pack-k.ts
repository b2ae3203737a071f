import {
  advance,
  type Code,
  f32x4Abs,
  f32x4Div,
  f32x4LessThan,
  f32x4Max,
  f32x4Mul,
  f64x2Add,
  f64x2Convert,
  f64x2Div,
  f64x2Floor,
  f64x2Min,
  f64x2Mul,
  f64x2Promote,
  get,
  i8x16Min,
  i8x16Narrow,
  i8x16NarrowSigned,
  i8x16ShiftLeft,
  i8x16ShiftRight,
  i8x16Shuffle,
  i16x8Narrow,
  i16x8NarrowSigned,
  i32Const,
  i32Store,
  i32Store16,
  i32x4First,
  i32x4ShiftLeft,
  i32x4ShiftRight,
  i32x4TruncateDoubles,
  repeatBelow,
  set,
  v128And,
  v128AndNot,
  v128Load,
  v128LoadSplat,
  v128Or,
  v128Store,
  type WasmFunction,
} from '../wasm/assemble.ts'
import { float16Bits, toFloat16 } from '../wasm/float16.ts'
import {
  firstOfMagnitude,
  inverseDouble,
  promoteHigh,
  splat,
  splatBytes,
  splatDouble,
  splatInt,
  spread,
  truncateDoubles,
  upTo,
} from '../wasm/vectors.ts'

/** Below it a block counts as all zero. */
export const SMALLEST = 1e-15

const [FIRST_TWICE, LAST_TWICE] = [
  i8x16Shuffle([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7]),
  i8x16Shuffle([8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15]),
]
const EVEN = i8x16Shuffle([0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27])
const ODD = i8x16Shuffle([4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31])

/** Sixteen codes, clamped to 0…highest, from four vectors of whole numbers; on the stack. */
const sixteenCodes = (codes: readonly Code[], highest: number): Code => [
  [codes[0]!, codes[1]!, i16x8NarrowSigned, codes[2]!, codes[3]!, i16x8NarrowSigned],
  [i8x16Narrow, splatBytes(highest), i8x16Min],
]

/**
 * Packs super-blocks of 256 weights at `values` up to `end` as Q4_K (gguf-blocks-k.ts) to `target`. `fitted` holds scale,
 * minimum, scale, minimum of each group of 32; `scratch` has room for 72 bytes. Scales and codes are computed in float64, two
 * at a time: products of what the file holds are exact there.
 */
export const packQ4K: WasmFunction = {
  name: 'packQ4K',
  parameters: 5,
  returns: false,
  integers: 0,
  vectors: 15,
  body: (() => {
    const [values, end, fitted, target, scratch] = [0, 1, 2, 3, 4]
    const [largest, steps, size, halves, wide, real, inverse, scale, minimum, x] = [
      5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    ]
    const held = (i: number) => 15 + i // codes of an even group
    const [a, b, c, d] = [16, 17, 18, 19] // not while codes are held
    const sixBits = (group: number): Code => [
      [get(scratch), splatDouble(63), get(fitted), v128Load(16 * group), f64x2Promote, f64x2Mul],
      [get(wide), f64x2Div, splatDouble(0.5), f64x2Add, f64x2Floor, splatDouble(63), f64x2Min],
      [i32x4TruncateDoubles, v128Store(8 * group)],
    ]
    const twelveBytes: Code = [
      [a, b, c, d].map((local, i) => [get(scratch), v128Load(16 * i), set(local)]),
      [get(a), get(b), EVEN, set(size), get(a), get(b), ODD, set(x)],
      [get(c), get(d), EVEN, set(scale), get(c), get(d), ODD, set(minimum)],
      get(target),
      [
        [size, scale],
        [x, minimum],
      ].map(([low, high]) => [
        [get(low!), get(high!), i32Const(4), i32x4ShiftRight, i32Const(6), i32x4ShiftLeft, v128Or],
      ]),
      i16x8Narrow,
      [
        get(scale),
        splatInt(15),
        v128And,
        get(minimum),
        splatInt(15),
        v128And,
        i32Const(4),
        i32x4ShiftLeft,
        v128Or,
      ],
      [set(a), get(a), get(a), i16x8Narrow, i8x16Narrow, v128Store(4)],
    ]
    const code = (half: Code): Code => [
      [half, get(minimum), f64x2Add, get(scale), f64x2Mul, splatDouble(0.5), f64x2Add],
    ]
    const codes = (group: number, i: number): Code => [
      [get(values), v128Load(128 * group + 16 * i), set(x)],
      truncateDoubles(code([get(x), f64x2Promote]), code(promoteHigh(x))),
    ]
    const sixteen = (group: number, half: number) =>
      sixteenCodes(
        upTo(4).map((i) => codes(group, 4 * half + i)),
        15,
      )
    const packGroup = (group: number): Code => [
      [get(halves), get(scratch), v128Load(8 * group), f64x2Convert, f64x2Mul, set(real)],
      [inverseDouble(real), set(inverse), get(inverse), get(inverse), FIRST_TWICE, set(scale)],
      [get(real), get(real), LAST_TWICE, set(minimum)],
      upTo(2).map((half) =>
        group % 2 === 0
          ? [sixteen(group, half), set(held(half))]
          : [
              [get(target), get(held(half)), sixteen(group, half), i32Const(4), i8x16ShiftLeft, v128Or],
              v128Store(16 + 16 * (group - 1) + 16 * half),
            ],
      ),
    ]
    return repeatBelow(values, end, [
      [get(fitted), v128Load(), set(largest)],
      upTo(8).map((i) => [get(largest), get(fitted), v128Load(16 * i), f32x4Max, set(largest)]),
      [get(largest), splat(63), f32x4Div, set(steps)],
      [get(target), float16Bits(steps, size), set(x), get(x), get(x), i16x8Narrow, i32x4First, i32Store()],
      [toFloat16(steps, size), get(steps), f64x2Promote, set(halves)],
      [get(largest), f64x2Promote, set(wide), upTo(8).map(sixBits), twelveBytes, upTo(8).map(packGroup)],
      [advance(values, 1024), advance(fitted, 128), advance(target, 144)],
    ])
  })(),
}

/**
 * Packs super-blocks of 256 weights at `values` up to `end` as Q6_K (gguf-blocks-k.ts) to `target`. `fitted` holds the scale of
 * each group of 16; `scratch` has room for 64 bytes.
 */
export const packQ6K: WasmFunction = {
  name: 'packQ6K',
  parameters: 5,
  returns: false,
  integers: 0,
  vectors: 14,
  body: (() => {
    const [values, end, fitted, target, scratch] = [0, 1, 2, 3, 4]
    const [largest, extreme, dead, step, size, halves, wide, real, inverse, x] = [
      5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    ]
    const q = (row: number) => 15 + row
    const unlessDead: Code = [get(dead), v128AndNot]
    const signedByte = (half: Code): Code => [
      [half, splatDouble(-128), f64x2Mul, get(wide), f64x2Div, splatDouble(0.5), f64x2Add, f64x2Floor],
      [splatDouble(127), f64x2Min],
    ]
    const scales = (i: number): Code => [
      [get(fitted), v128Load(16 * i), set(x), get(scratch)],
      [truncateDoubles(signedByte([get(x), f64x2Promote]), signedByte(promoteHigh(x))), v128Store(16 * i)],
    ]
    const loadScales = (i: number): Code => [get(scratch), v128Load(16 * i)]
    const code = (half: Code): Code => [
      [half, get(inverse), f64x2Mul, splatDouble(0.5), f64x2Add, f64x2Floor, splatDouble(32), f64x2Add],
    ]
    const codes = (first: number): Code => [
      [get(values), v128Load(4 * first), set(x)],
      truncateDoubles(code([get(x), f64x2Promote]), code(promoteHigh(x))),
    ]
    /** Codes of the group in a row of 32 of a half of the super-block, in its first or last 16 columns. */
    const group = (half: number, row: number, side: number): Code => [
      [get(halves), get(scratch), v128LoadSplat(4 * (8 * half + 2 * row + side)), f64x2Convert, f64x2Mul],
      [set(real), inverseDouble(real), set(inverse)],
      sixteenCodes(
        upTo(4).map((i) => codes(128 * half + 32 * row + 16 * side + 4 * i)),
        63,
      ),
      set(q(row)),
    ]
    const highBits = (row: number, move: Code): Code => [get(q(row)), splatBytes(0x30), v128And, move]
    const columns = ([half, side]: readonly [number, number]): Code => [
      upTo(4).map((row) => group(half, row, side)),
      upTo(2).map((row) => [
        [get(target), get(q(row)), splatBytes(15), v128And, get(q(row + 2)), i32Const(4), i8x16ShiftLeft],
        [v128Or, unlessDead, v128Store(64 * half + 32 * row + 16 * side)],
      ]),
      [get(target), highBits(0, [i32Const(4), i8x16ShiftRight])],
      [highBits(1, [i32Const(2), i8x16ShiftRight]), v128Or, highBits(2, []), v128Or],
      [
        highBits(3, [i32Const(2), i8x16ShiftLeft]),
        v128Or,
        unlessDead,
        v128Store(128 + 32 * half + 16 * side),
      ],
    ]
    return repeatBelow(values, end, [
      [get(fitted), v128Load(), f32x4Abs, set(largest)],
      upTo(4).map((i) => [get(largest), get(fitted), v128Load(16 * i), f32x4Abs, f32x4Max, set(largest)]),
      [spread(largest, f32x4Max), firstOfMagnitude(fitted, largest, 4), set(extreme)],
      [get(largest), splat(SMALLEST), f32x4LessThan, set(dead)],
      [get(extreme), splat(-1 / 128), f32x4Mul, set(step)],
      [get(target), float16Bits(step, size), unlessDead, i32x4First, i32Store16(208)],
      [toFloat16(step, size), get(step), f64x2Promote, set(halves), get(extreme), f64x2Promote, set(wide)],
      upTo(4).map(scales),
      [get(target), loadScales(0), loadScales(1), i16x8NarrowSigned, loadScales(2), loadScales(3)],
      [i16x8NarrowSigned, i8x16NarrowSigned, unlessDead, v128Store(192)],
      (
        [
          [0, 0],
          [0, 1],
          [1, 0],
          [1, 1],
        ] as const
      ).map(columns),
      [advance(values, 1024), advance(fitted, 64), advance(target, 210)],
    ])
  })(),
}
