import {
  advance,
  type Code,
  f32x4Convert,
  f32x4Mul,
  get,
  i32Const,
  i32x4Add,
  i32x4ExtendHigh,
  i32x4ExtendLow,
  i32x4GreaterThan,
  i32x4ShiftLeft,
  i32x4Splat,
  repeatBelow,
  set,
  v128And,
  v128Load,
  v128Or,
  v128Select,
  v128Store,
  type WasmFunction,
} from '../wasm/assemble.ts'
import { compileWasm, reserve } from '../wasm/instance.ts'
import { splat } from '../wasm/vectors.ts'

/** 16-bit numbers at `source` become float32 at `target`, eight at a time, until `source` reaches `end`. */
const widening = (name: string, vectors: number, widen: (bits: number) => Code): WasmFunction => ({
  name,
  parameters: 3,
  returns: false,
  integers: 0,
  vectors: 2 + vectors,
  body: (() => {
    const [source, target, end, eight, four] = [0, 1, 2, 3, 4]
    const half = (extend: Code, offset: number): Code => [
      [get(eight), extend, set(four), get(target), widen(four), v128Store(offset)],
    ]
    return repeatBelow(source, end, [
      [get(source), v128Load(), set(eight), half(i32x4ExtendLow, 0), half(i32x4ExtendHigh, 16)],
      [advance(source, 16), advance(target, 32)],
    ])
  })(),
})

const widenBfloat16 = widening('widenBfloat16', 0, (bits) => [get(bits), i32Const(16), i32x4ShiftLeft])

/**
 * Exponent and mantissa move up by 13 bits; the exponent grows by 112, and once more where it is all ones. Without an exponent
 * the number is the mantissa in steps of 2⁻²⁴.
 */
const widenFloat16 = widening('widenFloat16', 1, (bits) => {
  const size = 5 // after the locals of `widening`
  const all = (value: number): Code => [i32Const(value), i32x4Splat]
  const exponent = all(112 << 23)
  return [
    [get(bits), all(0x7fff), v128And, set(size)],
    [get(size), i32Const(13), i32x4ShiftLeft, exponent, i32x4Add],
    [get(size), all(0x7bff), i32x4GreaterThan, exponent, v128And, i32x4Add],
    [get(size), f32x4Convert, splat(2 ** -24), f32x4Mul],
    [get(size), all(0x3ff), i32x4GreaterThan, v128Select],
    [get(bits), all(0x8000), v128And, i32Const(16), i32x4ShiftLeft, v128Or],
  ]
})

type Widen = (source: number, target: number, end: number) => void

const instantiate = compileWasm<{ widenBfloat16: Widen; widenFloat16: Widen }>([widenBfloat16, widenFloat16])
let kernel: ReturnType<typeof instantiate> | undefined

/** Numbers that the kernel's memory takes at a time; they stay in the cache. */
const PIECE = 16 * 1024

/** Widens bfloat16 or float16 bits into `target`, as long as they; exact, NaN payloads included. */
export function widen(source: Uint16Array, from: 'bfloat16' | 'float16', target: Float32Array): void {
  kernel ??= instantiate()
  reserve(kernel.memory, 6 * PIECE)
  const { buffer } = kernel.memory
  const convert = from === 'bfloat16' ? kernel.widenBfloat16 : kernel.widenFloat16
  for (let at = 0; at < source.length; at += PIECE) {
    const piece = source.subarray(at, at + PIECE)
    new Uint16Array(buffer, 0, piece.length).set(piece)
    convert(0, 2 * PIECE, 2 * piece.length)
    target.set(new Float32Array(buffer, 2 * PIECE, piece.length), at)
  }
}
