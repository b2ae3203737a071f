import { type IntBlocks, packedBytes, put } from '../packed/int-blocks.ts'
import { compileWasm, reserve } from '../wasm/instance.ts'
import type { FixedGrid } from './gguf-codes-k.ts'
import { COLUMN_BYTES, feed, fit, round, STRIP } from './gptq-kernel.ts'

export interface RoundingOptions {
  /** Inputs of the matrices. */
  readonly columns: number
  /** Inputs that share a scale. */
  readonly groupSize: number
  readonly bits: 4 | 8
  readonly symmetric: boolean
  /** Trial scales, as parts of the one that covers a group's whole range. */
  readonly shrinks: readonly number[]
}

/** What errors are fed forward by and weighed with: the factors of a Hessian (factor.ts). */
export interface RoundingWeights {
  /** Undefined rounds every column by itself. */
  readonly feedback: Float32Array | undefined
  /** Weighs the errors of each column when a group's scale is chosen. */
  readonly diagonal: Float32Array
}

interface Functions {
  feed(out: number, base: number, errors: number, end: number, factors: number): void
  fit(
    values: number,
    end: number,
    weights: number,
    shrinks: number,
    shrinksEnd: number,
    scale: number,
    zero: number,
    limits: number,
  ): void
  round(
    wanted: number,
    weights: number,
    errors: number,
    scales: number,
    zeros: number,
    codes: number,
    limits: number,
  ): void
}

const instantiate = compileWasm<Functions>([feed, fit, round])

/** Byte offsets in the kernel's memory; a strip is [columns, 16]. */
interface Places {
  readonly feedback: number
  readonly diagonal: number
  readonly shrinks: number
  readonly limits: number
  readonly weights: number
  readonly wanted: number
  readonly errors: number
  readonly codes: number
  /** [groups, 16] each. */
  readonly scales: number
  readonly zeros: number
}

/**
 * Rounds matrices of one input column by column, feeding errors forward by the factors of their Hessian (see gptq), sixteen
 * rows at a time in WebAssembly's vectors: rows know nothing of each other, and a strip's errors stay in the cache.
 */
export class FeedbackRounding {
  readonly #options: RoundingOptions
  readonly #kernel = instantiate()
  readonly #at: Places
  readonly #groups: number
  readonly #feeds: boolean

  constructor(options: RoundingOptions, { feedback, diagonal }: RoundingWeights) {
    const { columns, groupSize, bits, symmetric, shrinks } = options
    this.#options = options
    this.#feeds = feedback !== undefined
    this.#groups = Math.ceil(columns / groupSize)
    const strip = columns * COLUMN_BYTES
    const sizes: Record<keyof Places, number> = {
      feedback: feedback?.byteLength ?? 0,
      diagonal: diagonal.byteLength,
      shrinks: 4 * shrinks.length,
      limits: 8,
      weights: strip,
      wanted: strip,
      errors: strip,
      codes: columns * STRIP,
      scales: this.#groups * COLUMN_BYTES,
      zeros: this.#groups * COLUMN_BYTES,
    }
    let end = 0
    const places = Object.entries(sizes).map(([name, bytes]) => {
      const at = end
      end += Math.ceil(bytes / 16) * 16
      return [name, at] as const
    })
    this.#at = Object.fromEntries(places) as unknown as Places
    reserve(this.#kernel.memory, end)
    if (feedback) this.#floats('feedback', feedback.length).set(feedback)
    this.#floats('diagonal', columns).set(diagonal)
    this.#floats('shrinks', shrinks.length).set(shrinks)
    this.#floats('limits', 2).set([2 ** bits - 1, symmetric ? 2 ** (bits - 1) : -1])
  }

  /**
   * Rounds a matrix, as `quantize` does, to scales and zero points that are settled already.
   *
   * @returns a byte for each code, [rows, columns].
   */
  quantizeTo(
    { scales, zeros, highest }: FixedGrid,
    values: Float32Array,
    rows: number,
    taken: Int32Array,
    kept: Int32Array,
  ): Uint8Array {
    const codes = new Uint8Array(values.length)
    this.#floats('limits', 1)[0] = highest
    for (let first = 0; first < rows; first += STRIP) {
      const count = Math.min(STRIP, rows - first)
      this.#takeStrip(values, first, count, taken)
      const [scaleAt, zeroAt] = [
        this.#floats('scales', this.#groups * STRIP),
        this.#floats('zeros', this.#groups * STRIP),
      ]
      for (let i = 0; i < count; i++) {
        for (let group = 0; group < this.#groups; group++) {
          const from = (first + i) * this.#groups + this.#placeOf(group, kept)
          scaleAt[group * STRIP + i] = scales[from]!
          zeroAt[group * STRIP + i] = zeros[from]!
        }
      }
      this.#roundStrip(() => {})
      this.#giveCodes(codes, 8, first, count, kept)
    }
    return codes
  }

  /**
   * Quantizes a matrix [rows, columns], whose inputs may be taken in another order.
   *
   * @param taken the input that is rounded at each step; −1 for one whose weights become 0.
   * @param kept where each step's code goes, which keeps the inputs of a group together; step by step when left out.
   */
  quantize(values: Float32Array, rows: number, taken: Int32Array, kept?: Int32Array): IntBlocks {
    const { bits, columns, groupSize, symmetric } = this.#options
    const blocks: IntBlocks = {
      bits,
      rows,
      columns,
      blockSize: groupSize,
      codes: new Uint8Array(packedBytes(rows * columns, bits)),
      scales: new Float32Array(rows * this.#groups),
      zeros: new Uint8Array(packedBytes(rows * this.#groups, bits)),
    }
    for (let first = 0; first < rows; first += STRIP) {
      const count = Math.min(STRIP, rows - first)
      this.#takeStrip(values, first, count, taken)
      this.#floats('scales', this.#groups * STRIP).fill(0)
      this.#floats('zeros', this.#groups * STRIP).fill(symmetric ? 2 ** (bits - 1) : 0)
      this.#roundStrip((start, end, scale, zero) => this.#fitGroup(start, end, scale, zero))
      this.#giveCodes(blocks.codes, bits, first, count, kept)
      this.#giveGrid(blocks, first, count, kept)
    }
    return blocks
  }

  #floats(place: keyof Places, length: number): Float32Array {
    return new Float32Array(this.#kernel.memory.buffer, this.#at[place], length)
  }

  /** Rows [first, first + count) as [columns, 16]; rows that there are not are 0. */
  #takeStrip(values: Float32Array, first: number, count: number, taken: Int32Array): void {
    const { columns } = this.#options
    const strip = this.#floats('weights', columns * STRIP).fill(0)
    for (let i = 0; i < count; i++) {
      const row = (first + i) * columns
      for (let step = 0; step < columns; step++) {
        const input = taken[step]!
        if (input >= 0) strip[step * STRIP + i] = values[row + input]!
      }
    }
  }

  /** @param settle sets scales and zero points of the columns [start, end) at two places, once their errors are known. */
  #roundStrip(settle: (start: number, end: number, scale: number, zero: number) => void): void {
    const { columns, groupSize } = this.#options
    const { feedback, weights, wanted, errors, codes, scales, zeros, limits } = this.#at
    for (let group = 0, start = 0; start < columns; group++, start += groupSize) {
      const end = Math.min(start + groupSize, columns)
      const first = errors + start * COLUMN_BYTES
      const before = this.#feeds ? first : errors
      for (let column = start; column < end; column++) {
        const at = column * COLUMN_BYTES
        this.#kernel.feed(wanted + at, weights + at, errors, before, feedback + 4 * column * columns)
      }
      const [scale, zero] = [scales + group * COLUMN_BYTES, zeros + group * COLUMN_BYTES]
      settle(start, end, scale, zero)
      for (let column = start; column < end; column++) {
        const at = column * COLUMN_BYTES
        const factors = feedback + 4 * (column * columns + start)
        if (this.#feeds) this.#kernel.feed(wanted + at, wanted + at, first, errors + at, factors)
        const code = codes + column * STRIP
        this.#kernel.round(wanted + at, weights + at, errors + at, scale, zero, code, limits)
      }
    }
  }

  /** The scales and zero points of a group's columns [start, end), four rows at a time. */
  #fitGroup(start: number, end: number, scale: number, zero: number): void {
    const { diagonal, wanted, shrinks, limits } = this.#at
    const shrinksEnd = shrinks + 4 * this.#options.shrinks.length
    for (let i = 0; i < COLUMN_BYTES; i += 16) {
      const from = wanted + start * COLUMN_BYTES + i
      const to = from + (end - start) * COLUMN_BYTES
      const weights = diagonal + 4 * start
      this.#kernel.fit(from, to, weights, shrinks, shrinksEnd, scale + i, zero + i, limits)
    }
  }

  #giveCodes(
    target: Uint8Array,
    bits: 4 | 8,
    first: number,
    count: number,
    kept: Int32Array | undefined,
  ): void {
    const { columns } = this.#options
    const codes = new Uint8Array(this.#kernel.memory.buffer, this.#at.codes, columns * STRIP)
    for (let i = 0; i < count; i++) {
      const row = (first + i) * columns
      for (let step = 0; step < columns; step++) {
        put(target, row + (kept ? kept[step]! : step), codes[step * STRIP + i]!, bits)
      }
    }
  }

  #giveGrid(blocks: IntBlocks, first: number, count: number, kept: Int32Array | undefined): void {
    const scales = this.#floats('scales', this.#groups * STRIP)
    const zeros = this.#floats('zeros', this.#groups * STRIP)
    for (let i = 0; i < count; i++) {
      for (let group = 0; group < this.#groups; group++) {
        const to = (first + i) * this.#groups + this.#placeOf(group, kept)
        blocks.scales[to] = scales[group * STRIP + i]!
        put(blocks.zeros, to, zeros[group * STRIP + i]!, blocks.bits)
      }
    }
  }

  /** Where the group stands whose inputs are rounded `group`-th. */
  #placeOf(group: number, kept: Int32Array | undefined): number {
    const { groupSize } = this.#options
    return kept ? Math.floor(kept[group * groupSize]! / groupSize) : group
  }
}
