import {
  advance,
  type Code,
  f32x4Abs,
  f32x4Add,
  f32x4Div,
  f32x4Equal,
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
  i32Add,
  i32Const,
  i32Or,
  i32ShiftLeft,
  i32Store16,
  i32TrailingZeros,
  i32x4Add,
  i32x4First,
  i32x4Min,
  i32x4ShiftRight,
  i32x4Signs,
  i32x4Splat,
  i32x4Sub,
  i32x4Truncate,
  repeatBelow,
  set,
  v128And,
  v128AndNot,
  v128Load,
  v128LoadSplat,
  v128Or,
  v128Select,
  v128Store,
  type WasmFunction,
} from '../wasm/assemble.ts'
import { compileWasm, reserve } from '../wasm/instance.ts'
import { inverse, splat, spread } from '../wasm/vectors.ts'

/** Weights of one block, eight vectors. */
const SIZE = 32
const VECTORS = [0, 1, 2, 3, 4, 5, 6, 7]

const bits = (value: number): Code => [i32Const(value), i32x4Splat]

/** The largest magnitude of the block at `values`, in all places. */
const largestOf = (values: number, largest: number): Code => [
  [splat(0), set(largest)],
  VECTORS.map((i) => [get(values), v128Load(16 * i), f32x4Abs, get(largest), f32x4Max, set(largest)]),
  spread(largest, f32x4Max),
]

/**
 * Stores float32 `x` as float16, to nearest, ties to even. Above 2⁻¹⁴ the mantissa loses 13 bits and the exponent 112; below,
 * float16 counts steps of 2⁻²⁴, which is what x + 0.5 counts behind the point in float32.
 */
const storeFloat16 = (target: number, x: number, size: number, offset = 0): Code => [
  [get(x), f32x4Abs, set(size), get(target)],
  [get(size), splat(0.5), f32x4Add, bits(0x3f000000), i32x4Sub],
  [get(size), get(size), i32Const(13), i32x4ShiftRight, bits(1), v128And, i32x4Add, bits(0xfff), i32x4Add],
  [i32Const(13), i32x4ShiftRight, bits(112 << 10), i32x4Sub, bits(0x7c00), i32x4Min],
  [get(size), splat(2 ** -14), f32x4LessThan, v128Select],
  [get(x), i32Const(16), i32x4ShiftRight, bits(0x8000), v128And, v128Or, i32x4First, i32Store16(offset)],
]

/** Sixteen codes below 256 from four vectors of floats; on the stack. */
const narrowed = (codes: readonly Code[]): Code => [
  [codes[0]!, i32x4Truncate, codes[1]!, i32x4Truncate, i16x8Narrow],
  [codes[2]!, i32x4Truncate, codes[3]!, i32x4Truncate, i16x8Narrow],
  i8x16Narrow,
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
    // A bit for each weight of the largest magnitude; the first of them keeps its sign.
    const firstLargest: Code = [
      get(values),
      i32Const(0),
      VECTORS.map((i) => [
        [get(values), v128Load(16 * i), f32x4Abs, get(largest), f32x4Equal, i32x4Signs],
        [i32Const(4 * i), i32ShiftLeft, i32Or],
      ]),
      [i32TrailingZeros, i32Const(2), i32ShiftLeft, i32Add, v128LoadSplat()],
    ]
    const code = (i: number): Code => [
      [get(values), v128Load(16 * i), get(factor), f32x4Mul, splat(8.5), f32x4Add, splat(15), f32x4Min],
    ]
    return repeatBelow(values, end, [
      largestOf(values, largest),
      [firstLargest, splat(-0.125), f32x4Mul, set(scale), inverse(scale), set(factor)],
      storeFloat16(target, scale, size),
      [get(target), narrowed([0, 1, 2, 3].map(code)), narrowed([4, 5, 6, 7].map(code))],
      [i32Const(4), i8x16ShiftLeft, v128Or, v128Store(2)],
      advance(values, 4 * SIZE),
      advance(target, 18),
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
      [get(whole), splat(1), get(x), bits(-0x80000000), v128And, v128Or],
      [get(x), get(whole), f32x4Sub, f32x4Abs, splat(0.5), f32x4LessThan, v128AndNot, f32x4Add],
      [i32x4Truncate, bits(0xff), v128And],
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

type Pack = (values: number, end: number, target: number) => void

const instantiate = compileWasm<Record<'q4_0' | 'q8_0', Pack>>([q4_0, q8_0])
let kernel: ReturnType<typeof instantiate> | undefined

/** Weights that the kernel's memory takes at a time; they stay in the cache. */
const PIECE = 64 * 1024

/** Packs whole blocks of 32 weights in WebAssembly's vectors, byte for byte as ggml's reference code does. */
export function packBlocks(
  format: 'q4_0' | 'q8_0',
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
