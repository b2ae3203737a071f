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
  f32x4Sub,
  f32x4Truncate,
  get,
  i8x16Narrow,
  i8x16ShiftLeft,
  i16x8Narrow,
  i32Const,
  i32Store16,
  i32x4First,
  i32x4Truncate,
  repeatBelow,
  set,
  v128And,
  v128AndNot,
  v128Load,
  v128Or,
  v128Store,
  type WasmFunction,
} from '../wasm/assemble.ts'
import { float16Bits } from '../wasm/float16.ts'
import { compileWasm, reserve } from '../wasm/instance.ts'
import { firstOfMagnitude, inverse, splat, splatInt, spread } from '../wasm/vectors.ts'

/** Weights of one block, eight vectors. */
const SIZE = 32
const VECTORS = [0, 1, 2, 3, 4, 5, 6, 7]

/** The largest magnitude of the block at `values`, in all places. */
const largestOf = (values: number, largest: number): Code => [
  [splat(0), set(largest)],
  VECTORS.map((i) => [get(values), v128Load(16 * i), f32x4Abs, get(largest), f32x4Max, set(largest)]),
  spread(largest, f32x4Max),
]

/** Stores float32 `x` as float16. */
const storeFloat16 = (target: number, x: number, size: number, offset = 0): Code => [
  [get(target), float16Bits(x, size), i32x4First, i32Store16(offset)],
]

/** Sixteen codes below 256 from four vectors of floats; on the stack. */
const narrowed = (codes: readonly Code[]): Code => [
  [codes[0]!, i32x4Truncate, codes[1]!, i32x4Truncate, i16x8Narrow],
  [codes[2]!, i32x4Truncate, codes[3]!, i32x4Truncate, i16x8Narrow],
  i8x16Narrow,
]

/** Codes of 4 bits of the block's first half in the low halves of bytes, of its second half in the high ones; on the stack. */
const halves = (code: (i: number) => Code): Code => [
  [narrowed([0, 1, 2, 3].map(code)), narrowed([4, 5, 6, 7].map(code)), i32Const(4), i8x16ShiftLeft, v128Or],
]

/** Q4_0 (gguf-blocks-simple.ts): blocks at `values` up to `end` to `target`. */
const q4_0: WasmFunction = {
  name: 'q4_0',
  parameters: 3,
  returns: false,
  integers: 0,
  vectors: 4,
  body: (() => {
    const [values, end, target, largest, scale, factor, size] = [0, 1, 2, 3, 4, 5, 6]
    const code = (i: number): Code => [
      [get(values), v128Load(16 * i), get(factor), f32x4Mul, splat(8.5), f32x4Add, splat(15), f32x4Min],
    ]
    return repeatBelow(values, end, [
      largestOf(values, largest),
      [
        firstOfMagnitude(values, largest, VECTORS.length),
        splat(-0.125),
        f32x4Mul,
        set(scale),
        inverse(scale),
        set(factor),
      ],
      storeFloat16(target, scale, size),
      [get(target), halves(code), v128Store(2)],
      advance(values, 4 * SIZE),
      advance(target, 18),
    ])
  })(),
}

/** Q4_1 (gguf-blocks-simple.ts): blocks at `values` up to `end` to `target`. */
const q4_1: WasmFunction = {
  name: 'q4_1',
  parameters: 3,
  returns: false,
  integers: 0,
  vectors: 5,
  body: (() => {
    const [values, end, target, low, high, scale, factor, size] = [0, 1, 2, 3, 4, 5, 6, 7]
    const code = (i: number): Code => [
      [get(values), v128Load(16 * i), get(low), f32x4Sub, get(factor), f32x4Mul],
      [splat(0.5), f32x4Add, splat(15), f32x4Min],
    ]
    return repeatBelow(values, end, [
      [get(values), v128Load(), set(low), get(low), set(high)],
      VECTORS.slice(1).map((i) => [
        [get(low), get(values), v128Load(16 * i), f32x4Min, set(low)],
        [get(high), get(values), v128Load(16 * i), f32x4Max, set(high)],
      ]),
      [spread(low, f32x4Min), spread(high, f32x4Max)],
      [get(high), get(low), f32x4Sub, splat(15), f32x4Div, set(scale), inverse(scale), set(factor)],
      [storeFloat16(target, scale, size), storeFloat16(target, low, size, 2)],
      [get(target), halves(code), v128Store(4)],
      [advance(values, 4 * SIZE), advance(target, 20)],
    ])
  })(),
}

/** Q8_0 (gguf-blocks-simple.ts): blocks at `values` up to `end` to `target`. */
const q8_0: WasmFunction = {
  name: 'q8_0',
  parameters: 3,
  returns: false,
  integers: 0,
  vectors: 6,
  body: (() => {
    const [values, end, target, scale, factor, x, whole, size] = [0, 1, 2, 3, 4, 5, 6, 7]
    // To nearest, halves away from zero, as C's roundf; of the whole number the lowest byte.
    const code = (i: number): Code => [
      [get(values), v128Load(16 * i), get(factor), f32x4Mul, set(x), get(x), f32x4Truncate, set(whole)],
      [get(whole), splat(1), get(x), splatInt(-0x80000000), v128And, v128Or],
      [get(x), get(whole), f32x4Sub, f32x4Abs, splat(0.5), f32x4LessThan, v128AndNot, f32x4Add],
      [i32x4Truncate, splatInt(0xff), v128And],
    ]
    const sixteen = (first: number): Code => [
      [code(first), code(first + 1), i16x8Narrow, code(first + 2), code(first + 3), i16x8Narrow],
      i8x16Narrow,
    ]
    return repeatBelow(values, end, [
      largestOf(values, scale),
      [get(scale), splat(127), f32x4Div, set(scale), inverse(scale), set(factor)],
      storeFloat16(target, scale, size),
      [0, 1].map((half) => [get(target), sixteen(4 * half), v128Store(2 + 16 * half)]),
      advance(values, 4 * SIZE),
      advance(target, 34),
    ])
  })(),
}

type Format = 'q4_0' | 'q4_1' | 'q8_0'
type Pack = (values: number, end: number, target: number) => void

const instantiate = compileWasm<Record<Format, Pack>>([q4_0, q4_1, q8_0])
let kernel: ReturnType<typeof instantiate> | undefined

/** Weights that the kernel's memory takes at a time; they stay in the cache. */
const PIECE = 64 * 1024

/** Packs whole blocks of 32 weights in WebAssembly's vectors, byte for byte as ggml's reference code does. */
export function packBlocks(
  format: Format,
  blockBytes: number,
  values: Float32Array,
  target: Uint8Array,
): void {
  kernel ??= instantiate()
  reserve(kernel.memory, PIECE * 4 + (PIECE / SIZE) * blockBytes)
  const { buffer } = kernel.memory
  for (let from = 0, to = 0; from < values.length; from += PIECE) {
    const piece = values.subarray(from, from + PIECE)
    const bytes = (piece.length / SIZE) * blockBytes
    new Float32Array(buffer, 0, piece.length).set(piece)
    kernel[format](0, piece.byteLength, PIECE * 4)
    target.set(new Uint8Array(buffer, PIECE * 4, bytes), to)
    to += bytes
  }
}
