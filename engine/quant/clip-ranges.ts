import { setImmediate } from 'node:timers/promises'
import { dequantizeIntBlocks, type IntBlocks, packCodes, unpackCodes } from '../packed/int-blocks.ts'
import { difference } from '../tensor.ts'
import { FeedbackRounding } from './feedback-rounding.ts'
import type { GptqOptions } from './gptq.ts'
import type { MatrixProduct } from './matrix-product.ts'

/** Trial ranges of a group, as parts of the whole one. */
const CLIPS = Array.from({ length: 11 }, (_, i) => 1 - i / 20)

/** A matrix that is rounded, and may be rounded otherwise. */
export interface RoundedMatrix {
  /** [rows, columns], as they meet the inputs. */
  readonly values: Float32Array
  /** What the values times `scales` are rounded to. */
  readonly blocks: IntBlocks
  /** What each input is divided by before it meets the blocks; undefined where they take inputs as they are. */
  readonly scales: Float32Array | undefined
}

/** What is to be rounded of a group: all rows' columns of it. */
interface Part {
  readonly values: Float32Array
  readonly scales: Float32Array | undefined
  /** The values times the scales. */
  readonly scaled: Float32Array
  /** The columns' numbers within the group. */
  readonly inTurn: Int32Array
}

/** One group of all rows. */
interface RoundedGroup {
  /** A byte for each code, [rows, size]. */
  readonly codes: Uint8Array
  /** [rows]. */
  readonly scales: Float32Array
  readonly zeros: Uint8Array
  /** ŵ − w as they meet the inputs, input by input: [size, rows]. */
  readonly errors: Float32Array
}

/**
 * Clips the ranges of groups where that leaves less error of the outputs, as AWQ's code does behind its scales
 * (arXiv:2306.00978). With e a row's errors and H = Xᵀ·X, its outputs are off by e·H·eᵀ, of which
 *   e_g·(H_gg·e_gᵀ + 2·r_g),  r_g = Σ_{h≠g} H_gh·e_hᵀ
 * depends on group g. AWQ leaves r_g out; here groups are taken one after another, each beside what the others leave, so that
 * no step adds to a row's error.
 *
 * @param hessian H [columns, columns].
 */
export function clipRanges(
  matrix: RoundedMatrix,
  hessian: Float32Array,
  options: Pick<GptqOptions, 'symmetric' | 'signedScales'>,
  product: MatrixProduct,
): Promise<IntBlocks> {
  return new RangeClipping(matrix, hessian, options, product).run()
}

class RangeClipping {
  readonly #matrix: RoundedMatrix
  readonly #hessian: Float32Array
  readonly #product: MatrixProduct
  readonly #symmetric: boolean
  readonly #clips: readonly number[]
  /** One for each clip, by the size of the groups. */
  readonly #roundings = new Map<number, readonly FeedbackRounding[]>()
  /** What is found so far: codes and zero points of a byte each. */
  readonly #codes: Uint8Array
  readonly #zeros: Uint8Array
  readonly #scales: Float32Array
  /** [columns, rows]. */
  readonly #errors: Float32Array

  constructor(
    matrix: RoundedMatrix,
    hessian: Float32Array,
    { symmetric, signedScales }: Pick<GptqOptions, 'symmetric' | 'signedScales'>,
    product: MatrixProduct,
  ) {
    const { blocks, values, scales } = matrix
    this.#matrix = matrix
    this.#hessian = hessian
    this.#product = product
    this.#symmetric = symmetric
    this.#clips = signedScales ? CLIPS.flatMap((clip) => [clip, -clip]) : CLIPS
    this.#codes = unpackCodes(blocks.codes, values.length, blocks.bits)
    this.#zeros = unpackCodes(blocks.zeros, blocks.scales.length, blocks.bits)
    this.#scales = blocks.scales.slice()
    this.#errors = errorsOf(blocks, values, scales)
  }

  async run(): Promise<IntBlocks> {
    const { blocks } = this.#matrix
    const { columns, blockSize, bits } = blocks
    const through = await this.#product.run(this.#hessian, this.#errors, columns)
    for (let start = 0; start < columns; start += blockSize) {
      await this.#clipGroup(start, Math.min(start + blockSize, columns), through)
      await setImmediate() // lets a cancellation in
    }
    const [codes, zeros] = [packCodes(this.#codes, bits), packCodes(this.#zeros, bits)]
    return { ...blocks, codes, zeros, scales: this.#scales }
  }

  /** @param through Σ_h H_gh·e_hᵀ of all groups, [columns, rows]; kept up to date. */
  async #clipGroup(start: number, end: number, through: Float32Array): Promise<void> {
    const { columns, rows } = this.#matrix.blocks
    const size = end - start
    const meeting = this.#hessian.subarray(start * columns, end * columns)
    const gram = columnsOf(meeting, columns, start, end)
    const before = this.#errors.subarray(start * rows, end * rows)
    const own = await this.#product.run(gram, before, size)
    const others = difference(through.subarray(start * rows, end * rows), own)
    const part = this.#partOf(start, end)
    const best = this.#groupAt(start, end, before)
    const least = lossesOf(before, own, others, rows)
    const trials = this.#roundingsOf(size).map((rounding) => this.#trial(part, rounding))
    // All trials in one product: one of each would cost more in calls than in sums.
    const all = await this.#product.run(gram, sideBySide(trials, size, rows), size)
    for (const [index, trial] of trials.entries()) {
      const place = { first: index * rows, width: trials.length * rows }
      takeBetter(best, trial, least, lossesOf(trial.errors, all, others, rows, place))
    }
    add(through, await this.#product.run(meeting, difference(best.errors, before), size))
    this.#keep(start, end, best)
  }

  #roundingsOf(columns: number): readonly FeedbackRounding[] {
    const known = this.#roundings.get(columns)
    if (known) return known
    const { bits, blockSize: groupSize } = this.#matrix.blocks
    const weights = { feedback: undefined, diagonal: new Float32Array(columns).fill(1) }
    const roundings = this.#clips.map((clip) => {
      const options = { columns, groupSize, bits, symmetric: this.#symmetric, shrinks: [clip] }
      return new FeedbackRounding(options, weights)
    })
    this.#roundings.set(columns, roundings)
    return roundings
  }

  #partOf(start: number, end: number): Part {
    const { values, scales: all, blocks } = this.#matrix
    const part = columnsOf(values, blocks.columns, start, end)
    const scales = all?.subarray(start, end)
    const scaled = scales ? part.map((value, i) => value * scales[i % scales.length]!) : part
    return { values: part, scales, scaled, inTurn: Int32Array.from({ length: end - start }, (_, i) => i) }
  }

  #trial({ values, scales, scaled, inTurn }: Part, rounding: FeedbackRounding): RoundedGroup {
    const { rows, bits } = this.#matrix.blocks
    const rounded = rounding.quantize(scaled, rows, inTurn)
    return {
      codes: unpackCodes(rounded.codes, values.length, bits),
      zeros: unpackCodes(rounded.zeros, rows, bits),
      scales: rounded.scales,
      errors: errorsOf(rounded, values, scales),
    }
  }

  #groupAt(start: number, end: number, errors: Float32Array): RoundedGroup {
    const { columns, blockSize } = this.#matrix.blocks
    const groups = Math.ceil(columns / blockSize)
    const group = start / blockSize
    return {
      codes: columnsOf(this.#codes, columns, start, end),
      scales: columnsOf(this.#scales, groups, group, group + 1),
      zeros: columnsOf(this.#zeros, groups, group, group + 1),
      errors: errors.slice(),
    }
  }

  #keep(start: number, end: number, { codes, scales, zeros }: RoundedGroup): void {
    const { rows, columns, blockSize } = this.#matrix.blocks
    const groups = Math.ceil(columns / blockSize)
    const size = end - start
    for (let row = 0; row < rows; row++) {
      this.#codes.set(codes.subarray(row * size, (row + 1) * size), row * columns + start)
      this.#scales[row * groups + start / blockSize] = scales[row]!
      this.#zeros[row * groups + start / blockSize] = zeros[row]!
    }
  }
}

/** ŵ / s − w, input by input: [columns, rows]. */
export function errorsOf(
  blocks: IntBlocks,
  values: Float32Array,
  scales: Float32Array | undefined,
): Float32Array {
  const { rows, columns } = blocks
  const rounded = dequantizeIntBlocks(blocks)
  const errors = new Float32Array(values.length)
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < columns; i++) {
      const at = row * columns + i
      errors[i * rows + row] = (scales ? rounded[at]! / scales[i]! : rounded[at]!) - values[at]!
    }
  }
  return errors
}

/** Errors [size, rows] of several trials as one matrix [size, trials · rows]. */
function sideBySide(trials: readonly RoundedGroup[], size: number, rows: number): Float32Array {
  const joined = new Float32Array(trials.length * size * rows)
  for (let input = 0; input < size; input++) {
    for (const [index, { errors }] of trials.entries()) {
      const line = errors.subarray(input * rows, (input + 1) * rows)
      joined.set(line, (input * trials.length + index) * rows)
    }
  }
  return joined
}

/** e_g·(H_gg·e_gᵀ + 2·r_g) of each row; `own` holds H_gg·e_gᵀ from column `first` on, in lines of `width`. */
function lossesOf(
  errors: Float32Array,
  own: Float32Array,
  others: Float32Array,
  rows: number,
  { first, width } = { first: 0, width: rows },
): Float64Array {
  const losses = new Float64Array(rows)
  for (let at = 0, from = first; at < errors.length; at += rows, from += width) {
    for (let row = 0; row < rows; row++) {
      losses[row]! += errors[at + row]! * (own[from + row]! + 2 * others[at + row]!)
    }
  }
  return losses
}

/** Takes over the rows of a trial that lose less than `least`, which they become. */
function takeBetter(
  best: RoundedGroup,
  trial: RoundedGroup,
  least: Float64Array,
  losses: Float64Array,
): void {
  const rows = losses.length
  const size = best.codes.length / rows
  for (let row = 0; row < rows; row++) {
    if (!(losses[row]! < least[row]!)) continue
    least[row] = losses[row]!
    best.codes.set(trial.codes.subarray(row * size, (row + 1) * size), row * size)
    best.scales[row] = trial.scales[row]!
    best.zeros[row] = trial.zeros[row]!
    for (let at = row; at < best.errors.length; at += rows) best.errors[at] = trial.errors[at]!
  }
}

/** Columns [from, to) of a matrix with rows of `width`, as a matrix of its own. */
function columnsOf<T extends Float32Array | Uint8Array>(
  matrix: T,
  width: number,
  from: number,
  to: number,
): T {
  const rows = matrix.length / width
  const part = matrix.slice(0, rows * (to - from)) as T
  for (let row = 0; row < rows; row++) {
    part.set(matrix.subarray(row * width + from, row * width + to), row * (to - from))
  }
  return part
}

function add(values: Float32Array, others: Float32Array): void {
  for (let i = 0; i < values.length; i++) values[i]! += others[i]!
}
