import {
  advance,
  type Code,
  f32x4Add,
  f32x4Mul,
  get,
  i16x8Narrow,
  i32Add,
  i32Const,
  i32x4Add,
  i32x4Equal,
  i32x4ShiftRight,
  i32x4Splat,
  repeatBelow,
  set,
  v128And,
  v128AnyTrue,
  v128Load,
  v128LoadSplat,
  v128Or,
  v128Store,
  type WasmFunction,
} from '../wasm/assemble.ts'
import { compileWasm, reserve } from '../wasm/instance.ts'
import { widenBfloat16 } from '../weights/widen-kernel.ts'

/** Rows and columns of one step of the product: eight accumulators, which is what the registers hold. */
const ROWS = 4
const PANEL = 8

/**
 * float32 at `source` become bfloat16 bits at `target`, rounded to nearest even: (x + 0x7fff + bit 16 of x) >>> 16.
 * Returns whether any of them is infinite or NaN.
 */
const narrow: WasmFunction = {
  name: 'narrow',
  parameters: 3,
  returns: true,
  integers: 0,
  vectors: 4,
  body: (() => {
    const [source, end, target, bits, low, high, wrong] = [0, 1, 2, 3, 4, 5, 6]
    const splat = (value: number): Code => [i32Const(value), i32x4Splat]
    const round = (offset: number, into: number): Code => [
      [get(source), v128Load(offset), set(bits)],
      [get(bits), splat(0x7fff), i32x4Add],
      [get(bits), i32Const(16), i32x4ShiftRight, splat(1), v128And, i32x4Add],
      [i32Const(16), i32x4ShiftRight, set(into)],
      // All ones in the exponent, before rounding or because of it.
      [get(into), splat(0x7f80), v128And, splat(0x7f80), i32x4Equal],
      [get(bits), splat(0x7f800000), v128And, splat(0x7f800000), i32x4Equal, v128Or],
      [get(wrong), v128Or, set(wrong)],
    ]
    return [
      repeatBelow(source, end, [
        round(0, low),
        round(16, high),
        [get(target), get(low), get(high), i16x8Narrow, v128Store()],
        advance(source, 32),
        advance(target, 16),
      ]),
      [get(wrong), v128AnyTrue],
    ]
  })(),
}

/**
 * Four rows of float32 at `weight`, `stride` bytes apart, += B·A. `a` lies in panels [columns / 8][rank][8], `b` as
 * [rank][4], up to `bEnd`; `end` is the end of the first row.
 */
const addProduct: WasmFunction = {
  name: 'addProduct',
  parameters: 6,
  returns: false,
  integers: 1 + ROWS,
  vectors: 3 + 2 * ROWS,
  body: (() => {
    const [weight, end, stride, a, b, bEnd, bAt] = [0, 1, 2, 3, 4, 5, 6]
    const row = (i: number) => 7 + i
    const [aLow, aHigh, factor] = [11, 12, 13]
    const sum = (i: number, half: number) => 14 + 2 * i + half
    const rows = Array.from({ length: ROWS }, (_, i) => i)
    const halves = [0, 1]
    const multiplyAdd = (i: number, half: number, column: number): Code => [
      [get(sum(i, half)), get(factor), get(column), f32x4Mul, f32x4Add, set(sum(i, half))],
    ]
    return repeatBelow(weight, end, [
      rows.map((i) => [i === 0 ? get(weight) : [get(row(i - 1)), get(stride), i32Add], set(row(i))]),
      rows.map((i) => halves.map((half) => [get(row(i)), v128Load(16 * half), set(sum(i, half))])),
      [get(b), set(bAt)],
      repeatBelow(bAt, bEnd, [
        [get(a), v128Load(), set(aLow), get(a), v128Load(16), set(aHigh)],
        rows.map((i) => [
          [get(bAt), v128LoadSplat(4 * i), set(factor)],
          multiplyAdd(i, 0, aLow),
          multiplyAdd(i, 1, aHigh),
        ]),
        advance(a, 32),
        advance(bAt, 16),
      ]),
      rows.map((i) => halves.map((half) => [get(row(i)), get(sum(i, half)), v128Store(16 * half)])),
      advance(weight, 32),
    ])
  })(),
}

interface Functions {
  widenBfloat16(source: number, target: number, end: number): void
  narrow(source: number, end: number, target: number): number
  addProduct(weight: number, end: number, stride: number, a: number, b: number, bEnd: number): void
}

const instantiate = compileWasm<Functions>([widenBfloat16, narrow, addProduct])

/** Whether the kernel takes rows of so many columns. */
export const fitsKernel = (columns: number): boolean => columns % PANEL === 0

/**
 * Adds B·A to bfloat16 rows, in float32 and in place, four rows at a time in WebAssembly's vectors: sums of `rank`
 * products, and one rounding to bfloat16 at the end. About as fast as the memory that the rows come from.
 */
export class LoraKernel {
  readonly #exports = instantiate()
  #columns = 0
  #rank = 0
  /** Byte offsets in the kernel's memory. */
  #at = { a: 0, b: 0, float: 0, half: 0 }

  /** Takes another A, [rank, columns], row-major; columns must fit the kernel. */
  load(a: Float32Array, rank: number, columns: number): void {
    const b = a.byteLength
    const float = b + ROWS * rank * 4
    const half = float + ROWS * columns * 4
    this.#columns = columns
    this.#rank = rank
    this.#at = { a: 0, b, float, half }
    const { memory } = this.#exports
    reserve(memory, half + ROWS * columns * 2)
    packPanels(a, rank, columns, new Float32Array(memory.buffer, 0, a.length))
  }

  /**
   * rows[n, columns] += scale · b[n, rank] · A, for n up to as many rows as there are.
   *
   * @returns the index of the first of the four rows in which a result is infinite or NaN, or undefined. The rows from
   *   there on are unchanged.
   */
  add(rows: Uint16Array, b: Float32Array, scale: number): number | undefined {
    const count = rows.length / this.#columns
    const half = new Uint16Array(this.#exports.memory.buffer, this.#at.half, ROWS * this.#columns)
    for (let row = 0; row < count; row += ROWS) {
      const block = rows.subarray(row * this.#columns, (row + ROWS) * this.#columns)
      half.set(block)
      this.#setFactors(b, row, Math.min(ROWS, count - row), scale)
      if (!this.#step(Math.ceil(block.length / PANEL) * PANEL)) return row
      block.set(half.subarray(0, block.length))
    }
    return undefined
  }

  /** Widens, multiplies and narrows the block that lies in the kernel's memory. */
  #step(elements: number): boolean {
    const { a, b, float, half } = this.#at
    this.#exports.widenBfloat16(half, float, half + 2 * elements)
    const stride = 4 * this.#columns
    this.#exports.addProduct(float, float + stride, stride, a, b, b + ROWS * 4 * this.#rank)
    return this.#exports.narrow(float, float + 4 * elements, half) === 0
  }

  /** b's rows as [rank][4], scaled; rows that there are not become 0. */
  #setFactors(b: Float32Array, row: number, count: number, scale: number): void {
    const factors = new Float32Array(this.#exports.memory.buffer, this.#at.b, ROWS * this.#rank)
    for (let r = 0; r < this.#rank; r++) {
      for (let i = 0; i < ROWS; i++) {
        factors[r * ROWS + i] = i < count ? scale * b[(row + i) * this.#rank + r]! : 0
      }
    }
  }
}

/** [rank, columns] to [columns / 8][rank][8]: what one step reads lies together. */
function packPanels(a: Float32Array, rank: number, columns: number, target: Float32Array): void {
  let to = 0
  for (let panel = 0; panel < columns; panel += PANEL) {
    for (let r = 0; r < rank; r++) {
      const from = r * columns + panel
      target.set(a.subarray(from, from + PANEL), to)
      to += PANEL
    }
  }
}
