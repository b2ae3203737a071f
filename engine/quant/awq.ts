import { setImmediate } from 'node:timers/promises'
import type { IntBlocks } from '../packed/int-blocks.ts'
import { clipRanges, errorsOf } from './clip-ranges.ts'
import { FeedbackRounding } from './feedback-rounding.ts'
import { type GptqOptions, type Matrix, shrinksOf } from './gptq.ts'
import type { MatrixProduct } from './matrix-product.ts'

/** Exponents that are tried, from 0 (no scaling) on. */
const EXPONENTS = Array.from({ length: 10 }, (_, i) => i / 10)

/** Matrices of scaled inputs, W·diag(s), and what the inputs are to be divided by. */
export interface ScaledMatrices {
  readonly blocks: ReadonlyMap<string, IntBlocks>
  /** s for each input; undefined where scaling gains nothing. */
  readonly scales: Float32Array | undefined
}

/**
 * Activation-aware scaling (AWQ, arXiv:2306.00978): inputs with large activations get finer steps, since W·x = (W·diag(s))·
 * (x / s), where s_j = a_j^α with a_j the root of input j's mean square, divided by √(max s · min s). α is the one of a grid
 * that leaves the least error of the outputs on the calibration text,
 *   Σ_rows (ŵ − w)·H·(ŵ − w)ᵀ with ŵ = round(w·diag(s))/s and H = Xᵀ·X.
 * While exponents are tried, every group's range is chosen to leave the least error weighted by H's diagonal; with the best
 * one, by what it leaves of the outputs (clip-ranges.ts).
 *
 * @param matrices all with `columns` inputs; they share the scales.
 * @param hessian Xᵀ·X of their inputs X, [columns, columns].
 * @param scalable whether something before the matrices can take 1 / s.
 */
export async function awq(
  matrices: readonly Matrix[],
  columns: number,
  hessian: Float32Array,
  options: GptqOptions,
  product: MatrixProduct,
  scalable: boolean,
): Promise<ScaledMatrices> {
  const inTurn = Int32Array.from({ length: columns }, (_, input) => input)
  let best: ScaledMatrices | undefined
  let least = Number.POSITIVE_INFINITY
  for (const exponent of scalable ? EXPONENTS : [0]) {
    const scales = exponent === 0 ? undefined : inputScales(hessian, columns, exponent)
    const rounding = roundingOf(hessian, columns, scales, options)
    const blocks = new Map<string, IntBlocks>()
    let error = 0
    for (const { path, rows, values } of matrices) {
      const rounded = rounding.quantize(scaled(values, scales), rows, inTurn)
      blocks.set(path, rounded)
      error += await outputError(errorsOf(rounded, values, scales), columns, hessian, product)
      await setImmediate() // lets a cancellation in
    }
    if (error >= least) continue
    least = error
    best = { blocks, scales }
  }
  const blocks = new Map<string, IntBlocks>()
  for (const { path, values } of matrices) {
    const rounded = { values, blocks: best!.blocks.get(path)!, scales: best!.scales }
    blocks.set(path, await clipRanges(rounded, hessian, options, product))
  }
  return { blocks, scales: best!.scales }
}

function scaled(values: Float32Array, scales: Float32Array | undefined): Float32Array {
  return scales ? values.map((value, i) => value * scales[i % scales.length]!) : values
}

function inputScales(hessian: Float32Array, columns: number, exponent: number): Float32Array {
  const roots = Float32Array.from({ length: columns }, (_, i) => Math.sqrt(hessian[i * columns + i]!))
  const floor = 1e-4 * roots.reduce((a, b) => Math.max(a, b), 0)
  const scales = roots.map((root) => Math.max(root, floor) ** exponent)
  const middle = Math.sqrt(scales.reduce((a, b) => Math.max(a, b)) * scales.reduce((a, b) => Math.min(a, b)))
  return middle > 0 ? scales.map((scale) => scale / middle) : scales.fill(1)
}

/** Rounding without feedback, whose groups' scales weigh errors by the inputs that they meet. */
function roundingOf(
  hessian: Float32Array,
  columns: number,
  scales: Float32Array | undefined,
  { groupSize, bits, symmetric, signedScales }: GptqOptions,
): FeedbackRounding {
  const diagonal = Float32Array.from({ length: columns }, (_, i) => {
    return hessian[i * columns + i]! / (scales ? scales[i]! ** 2 : 1)
  })
  const options = { columns, groupSize, bits, symmetric, shrinks: shrinksOf({ signedScales }) }
  return new FeedbackRounding(options, { feedback: undefined, diagonal })
}

/** tr(E·H·Eᵀ) of errors E, input by input. */
async function outputError(
  errors: Float32Array,
  columns: number,
  hessian: Float32Array,
  product: MatrixProduct,
): Promise<number> {
  return dot(await product.run(hessian, errors, columns), errors)
}

/** A loop of its own: V8 is slow at those of async functions. */
function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}
