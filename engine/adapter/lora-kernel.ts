import {
  advance,
  type Code,
  f32x4Add,
  f32x4Mul,
  get,
  i8x16Shuffle,
  i16x8AtLeast,
  i16x8Max,
  i16x8Narrow,
  i16x8ShiftLeft,
  i16x8Splat,
  i32Add,
  i32Const,
  i32x4Add,
  i32x4ShiftRight,
  i32x4Splat,
  repeatBelow,
  set,
  v128And,
  v128AnyTrue,
  v128Load,
  v128LoadSplat,
  v128Store,
  type WasmFunction,
} from '../wasm/assemble.ts'
import {
  compileWasm,
  instantiateIn,
  reserve,
  type SharedWasmMemory,
  sharedMemoryOf,
  type WasmMemory,
} from '../wasm/instance.ts'

/** Rows and columns of one step of the product: eight accumulators, which is what the registers hold. */
const ROWS = 4
const PANEL = 8

/** Eight bfloat16 numbers behind zeros, four at a time: they are float32 then. */
const WIDEN_LOW = [0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23]
const WIDEN_HIGH = [8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31]

/**
 * Four rows of bfloat16 at `weight`, `stride` bytes apart, += B·A, summed in float32 and rounded once, to nearest even:
 * (x + 0x7fff + bit 16 of x) >>> 16. `a` lies in panels [columns / 8][rank][8], `b` as [rank][4], up to `bEnd`; `end` is the
 * end of the first row. Returns whether a result is infinite or NaN, for finite A and B: no NaN then has bits below
 * bit 16, which rounding would carry away.
 *
 * Unrolling the inner loop makes it slower: V8 puts all loads before the arithmetic, and they fill the registers.
 */
const addProduct: WasmFunction = {
  name: 'addProduct',
  parameters: 6,
  returns: true,
  integers: ROWS,
  vectors: 6 + 2 * ROWS,
  body: (() => {
    const [weight, end, stride, a, b, bEnd, bAt] = [0, 1, 2, 3, 4, 5, 6]
    const row = (i: number) => (i === 0 ? weight : 6 + i)
    const [aLow, aHigh, factor, bits, largest, zero] = [10, 11, 12, 13, 14, 15]
    const sum = (i: number, half: number) => 16 + 2 * i + half
    const rows = Array.from({ length: ROWS }, (_, i) => i)
    const halves = [0, 1]
    const splat = (value: number): Code => [i32Const(value), i32x4Splat]
    const widen = (i: number, half: number): Code => [
      [get(zero), get(bits), i8x16Shuffle(half === 0 ? WIDEN_LOW : WIDEN_HIGH), set(sum(i, half))],
    ]
    const multiplyAdd = (i: number, half: number, column: number): Code => [
      [get(sum(i, half)), get(factor), get(column), f32x4Mul, f32x4Add, set(sum(i, half))],
    ]
    const round = (sum: number): Code => [
      [get(sum), splat(0x7fff), i32x4Add],
      [get(sum), i32Const(16), i32x4ShiftRight, splat(1), v128And, i32x4Add],
      [i32Const(16), i32x4ShiftRight],
    ]
    return [
      repeatBelow(weight, end, [
        rows.slice(1).map((i) => [get(row(i - 1)), get(stride), i32Add, set(row(i))]),
        rows.map((i) => [get(row(i)), v128Load(), set(bits), halves.map((half) => widen(i, half))]),
        [get(b), set(bAt)],
        repeatBelow(bAt, bEnd, [
          [get(a), v128Load(), set(aLow), get(a), v128Load(16), set(aHigh)],
          rows.map((i) => [
            [get(bAt), v128LoadSplat(4 * i), set(factor)],
            multiplyAdd(i, 0, aLow),
            multiplyAdd(i, 1, aHigh),
          ]),
          advance(a, 4 * PANEL),
          advance(bAt, 4 * ROWS),
        ]),
        rows.map((i) => [
          [halves.map((half) => round(sum(i, half))), i16x8Narrow, set(bits)],
          [get(row(i)), get(bits), v128Store()],
          // Without the sign, the largest of all tells whether any has nothing but ones in its exponent.
          [get(largest), get(bits), i32Const(1), i16x8ShiftLeft, i16x8Max, set(largest)],
        ]),
        advance(weight, 2 * PANEL),
      ]),
      [get(largest), i32Const(0xff00), i16x8Splat, i16x8AtLeast, v128AnyTrue],
    ]
  })(),
}

interface Functions {
  addProduct(weight: number, end: number, stride: number, a: number, b: number, bEnd: number): number
}

const FUNCTIONS = [addProduct]
const instantiate = compileWasm<Functions>(FUNCTIONS)

/** Whether the kernel takes rows of so many columns. */
export const fitsKernel = (columns: number): boolean => columns % PANEL === 0

/**
 * Adds B·A to bfloat16 rows, in float32 and in place, four rows at a time in WebAssembly's vectors: sums of `rank`
 * products, and one rounding to bfloat16 at the end. What limits it are the units that multiply and add.
 */
export class LoraKernel {
  readonly #memory: WasmMemory | SharedWasmMemory
  readonly #addProduct: Functions['addProduct']
  /** Where the kernel's part of the memory begins. */
  readonly #base: number
  #columns = 0
  #rank = 0
  #isFinite = true
  /** Byte offsets of A, of four rows of B and of four rows of weights. */
  #at = { a: 0, b: 0, rows: 0 }

  /** @param shared the memory in which the rows lie; without it, they are copied into the kernel's own. */
  constructor(shared?: SharedWasmMemory) {
    const own = shared ? undefined : instantiate()
    this.#memory = shared ?? own!.memory
    this.#addProduct = (own ?? instantiateIn<Functions>(shared!, FUNCTIONS)).addProduct
    this.#base = shared ? shared.buffer.byteLength : 0
  }

  /** Takes another A, [rank, columns], row-major; columns must fit the kernel. */
  load(a: Float32Array, rank: number, columns: number): void {
    const b = this.#base + a.byteLength
    const rows = b + ROWS * rank * 4
    this.#columns = columns
    this.#rank = rank
    this.#at = { a: this.#base, b, rows }
    reserve(this.#memory, rows + ROWS * columns * 2)
    const panels = new Float32Array(this.#memory.buffer, this.#base, a.length)
    this.#isFinite = packPanels(a, rank, columns, panels)
  }

  /**
   * rows[n, columns] += scale · b[n, rank] · A, for n up to as many rows as there are.
   *
   * @returns whether all results are finite; the rows are unknown if not.
   */
  add(rows: Uint16Array, b: Float32Array, scale: number): boolean {
    if (!this.#isFinite) return false
    const { buffer } = this.#memory
    const [columns, rank] = [this.#columns, this.#rank]
    const count = rows.length / columns
    const factors = new Float32Array(buffer, this.#at.b, ROWS * rank)
    const four = new Uint16Array(buffer, this.#at.rows, ROWS * columns)
    const isThere = this.#memory === sharedMemoryOf(rows.buffer)
    for (let row = 0; row < count; row += ROWS) {
      const left = Math.min(ROWS, count - row)
      if (!setFactors(factors, b, row, left, rank, scale)) return false
      if (isThere && left === ROWS) {
        if (!this.#addAt(rows.byteOffset + 2 * row * columns)) return false
        continue
      }
      const block = rows.subarray(row * columns, (row + left) * columns)
      four.set(block)
      if (!this.#addAt(this.#at.rows)) return false
      block.set(four.subarray(0, block.length))
    }
    return true
  }

  /** Changes the four rows at an offset of the memory; returns whether they are finite. */
  #addAt(rows: number): boolean {
    const { a, b } = this.#at
    const stride = 2 * this.#columns
    return this.#addProduct(rows, rows + stride, stride, a, b, b + 4 * ROWS * this.#rank) === 0
  }
}

/** b's rows as [rank][4], scaled; rows that there are not become 0. Returns whether all are finite. */
function setFactors(
  factors: Float32Array,
  b: Float32Array,
  row: number,
  count: number,
  rank: number,
  scale: number,
): boolean {
  let zero = 0
  for (let r = 0; r < rank; r++) {
    for (let i = 0; i < ROWS; i++) {
      const factor = i < count ? Math.fround(scale * b[(row + i) * rank + r]!) : 0
      factors[r * ROWS + i] = factor
      zero += factor * 0 // NaN from the first one that is not finite
    }
  }
  return zero === 0
}

/** [rank, columns] to [columns / 8][rank][8]: what one step reads lies together. Returns whether all numbers are finite. */
function packPanels(a: Float32Array, rank: number, columns: number, target: Float32Array): boolean {
  let to = 0
  let zero = 0
  for (let panel = 0; panel < columns; panel += PANEL) {
    for (let r = 0; r < rank; r++) {
      const from = r * columns + panel
      for (let i = 0; i < PANEL; i++) {
        const value = a[from + i]!
        target[to++] = value
        zero += value * 0 // NaN from the first one that is not finite
      }
    }
  }
  return zero === 0
}
