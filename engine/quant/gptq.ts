import { setImmediate } from 'node:timers/promises'
import type { OrderedBlocks } from '../packed/gptq-reader.ts'
import { factorHessian } from './factor.ts'
import { FeedbackRounding } from './feedback-rounding.ts'
import { type GgufBlockType, quantizeBlocks } from './gguf-blocks.ts'
import { gridOf, type PackedBlocks, SUPER_GRIDS, setCodes } from './gguf-codes-k.ts'
import { GGUF_GRIDS, isGgufIntType, packGgufBlocks } from './gguf-int-blocks.ts'
import type { MatrixProduct } from './matrix-product.ts'

export interface GptqOptions {
  readonly bits: 4 | 8
  /** Inputs that share a scale: 32, 64 or 128. */
  readonly groupSize: number
  readonly symmetric: boolean
  /** Scales may be negative, so that a weight of either sign takes the code farthest from the middle; symmetric only. */
  readonly signedScales?: boolean
  /** Quantize the inputs with the largest activations first (desc_act). */
  readonly actOrder: boolean
  /** Part of the Hessian's mean diagonal that is added to it. */
  readonly damping: number
}

/** A matrix [rows, columns] by the path of its module. */
export interface Matrix {
  readonly path: string
  readonly rows: number
  readonly values: Float32Array
}

/** Trial scales, as parts of the one that covers a group's whole range. */
const SHRINKS = [1, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7]
/** Both signs, and the scale that lets the largest weight take the code farthest from the middle of 4 bits exactly. */
const SIGNED_SHRINKS = [...SHRINKS, 0.875].flatMap((shrink) => [shrink, -shrink])

export const shrinksOf = ({ signedScales }: Pick<GptqOptions, 'signedScales'>): readonly number[] =>
  signedScales ? SIGNED_SHRINKS : SHRINKS

/**
 * GPTQ (arXiv:2210.17323) in the form that QuIP proves equal to it (LDLQ, arXiv:2307.13304, theorem 6), which needs the
 * factors of H = (I + U)·D·(I + U)ᵀ and not those of its inverse. Column by column, the errors E = W − Ŵ of the earlier
 * columns are fed into the next one before it is rounded:
 *   ŵ_k = round(w_k + Σ_{i<k} E_i·U_ik),
 * which leaves the error Σ_k D_k·|ŵ_k − (w_k + …)|² of the outputs. A group's scale is the one of a few trial scales with
 * the smallest such sum. Matrices that read the same input share H.
 *
 * @param matrices all with `columns` inputs.
 * @param hessian Xᵀ·X of their inputs X, [columns, columns]; destroyed.
 * @returns blocks by path, scales rounded to float16, as files keep them.
 * @throws EngineError `invalid` for a Hessian that is not positive definite after damping.
 */
export async function gptq(
  matrices: readonly Matrix[],
  columns: number,
  hessian: Float32Array,
  options: GptqOptions,
  product: MatrixProduct,
): Promise<Map<string, OrderedBlocks>> {
  const { dead, diagonal } = dampen(hessian, columns, options.damping)
  const { groupSize, bits, symmetric, actOrder } = options
  const order = actOrder ? byActivation(diagonal) : byActivationInGroups(diagonal, groupSize)
  const factors = await factorHessian(permuted(hessian, columns, order), columns, product)
  const rounding = new FeedbackRounding(
    { columns, groupSize, bits, symmetric, shrinks: shrinksOf(options) },
    factors,
  )
  const taken = order.map((input) => (dead[input] ? -1 : input))
  const result = new Map<string, OrderedBlocks>()
  for (const { path, rows, values } of matrices) {
    const blocks = rounding.quantize(values, rows, taken, actOrder ? undefined : order)
    result.set(path, { blocks, order: actOrder ? order : undefined })
    await setImmediate() // lets a cancellation in
  }
  return result
}

/**
 * GPTQ for the blocks of a GGUF file. Scales of 6 bits cannot follow the errors that are fed in, so those of Q4_K and Q6_K are
 * the ones that packing the weights themselves finds, and only the codes are rounded with feedback.
 *
 * @param typeOf the type of each matrix; undefined for one that stays at 16 bits.
 * @returns packed rows by path.
 */
export async function gptqForGguf(
  matrices: readonly Matrix[],
  columns: number,
  hessian: Float32Array,
  damping: number,
  typeOf: (path: string) => GgufBlockType | undefined,
  product: MatrixProduct,
): Promise<Map<string, PackedBlocks>> {
  const { dead, diagonal } = dampen(hessian, columns, damping)
  const result = new Map<string, PackedBlocks>()
  for (const type of new Set(matrices.map(({ path }) => typeOf(path)))) {
    if (type === undefined) continue
    const grid = isGgufIntType(type) ? GGUF_GRIDS[type] : SUPER_GRIDS[type]
    const order = byActivationInGroups(diagonal, grid.groupSize)
    const factors = await factorHessian(permuted(hessian, columns, order), columns, product)
    const rounding = new FeedbackRounding({ ...grid, columns, shrinks: shrinksOf(grid) }, factors)
    const taken = order.map((input) => (dead[input] ? -1 : input))
    for (const { path, rows, values } of matrices.filter((matrix) => typeOf(matrix.path) === type)) {
      if (isGgufIntType(type)) {
        const blocks = rounding.quantize(values, rows, taken, order)
        result.set(path, { type, bytes: packGgufBlocks(blocks, type) })
      } else {
        const bytes = quantizeBlocks(values, type)
        setCodes(type, bytes, rounding.quantizeTo(gridOf(type, bytes), values, rows, taken, order))
        result.set(path, { type, bytes })
      }
      await setImmediate() // lets a cancellation in
    }
  }
  return result
}

/** H += damping · mean(diag H) · I; inputs that are always zero get a diagonal and lose their weights. */
function dampen(hessian: Float32Array, columns: number, damping: number) {
  const dead = new Uint8Array(columns)
  let mean = 0
  for (let i = 0; i < columns; i++) {
    mean += hessian[i * columns + i]! / columns
    if (hessian[i * columns + i] === 0) dead[i] = 1
  }
  for (let i = 0; i < columns; i++) hessian[i * columns + i]! += dead[i] ? 1 : damping * mean
  const diagonal = Float32Array.from({ length: columns }, (_, i) => hessian[i * columns + i]!)
  return { dead, diagonal }
}

/** Inputs by falling diagonal of the Hessian. */
function byActivation(diagonal: Float32Array): Int32Array {
  const order = Int32Array.from(diagonal.keys())
  return order.sort((a, b) => diagonal[b]! - diagonal[a]! || a - b)
}

/**
 * Groups by their largest diagonal, and within each its inputs by theirs (group-aware reordering, arXiv:2505.14638): what
 * matters most is rounded before errors pile up, and yet the groups stay runs of neighbours. A shorter last group stays last.
 */
function byActivationInGroups(diagonal: Float32Array, groupSize: number): Int32Array {
  const whole = Math.floor(diagonal.length / groupSize)
  const groups = Array.from({ length: Math.ceil(diagonal.length / groupSize) }, (_, group) => {
    const first = group * groupSize
    return byActivation(diagonal.subarray(first, first + groupSize)).map((place) => first + place)
  })
  const largest = (group: Int32Array) => diagonal[group[0]!]!
  const sorted = groups.slice(0, whole).sort((a, b) => largest(b) - largest(a) || a[0]! - b[0]!)
  return Int32Array.from([...sorted, ...groups.slice(whole)].flatMap((group) => [...group]))
}

function permuted(hessian: Float32Array, columns: number, order: Int32Array): Float32Array {
  const result = new Float32Array(hessian.length)
  for (let i = 0; i < columns; i++) {
    const from = order[i]! * columns
    for (let j = 0; j < columns; j++) result[i * columns + j] = hessian[from + order[j]!]!
  }
  return result
}
