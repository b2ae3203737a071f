import type { GraphBuilder } from '../graph/builder.ts'
import type { Value } from '../graph/values.ts'
import type { Tensor } from '../tensor.ts'

/** Columns of a strip. Xᵀ·X is symmetric: of n strips (n + 1) / 2n of it are computed. */
const STRIP = 192
/**
 * Largest code. Where a processor has no instruction for the sum of four 8-bit products, the runtime adds two of them in 16 bits:
 * 2 · (2 · 90) · 90 < 2¹⁵.
 */
const RANGE = 90

/** Xᵀ·X of a graph's value X [rows, width], in integers. */
export interface Gram {
  readonly width: number
  /** Largest magnitude of each column, float32 [1, width]: what a code of RANGE stands for. */
  readonly largest: Value
  /** Rows [from, …) from their diagonal on, int32, of the codes. */
  readonly strips: readonly { readonly from: number; readonly value: Value }[]
}

/**
 * Appends the products that Xᵀ·X consists of. Columns are rounded to 8 bits, each by its own largest magnitude m: an error of at
 * most m / 180 for each value, which adds to the diagonal like damping (with r rows at most r / 12·90² of it, since m² is no
 * more than the column's sum of squares; 2 % for 2,048). Both sides are the same codes, so the sum is positive semidefinite
 * as it would be without rounding. It takes a third of the time of the float32 product. Sums fit 32 bits for 130,000 rows.
 */
export function emitGram(g: GraphBuilder, x: Value): Gram {
  const width = x.shape[1] as number
  // √max x² is max |x|; the least addend keeps columns of zeros from dividing by zero
  const largest = g.Sqrt(g.Add(g.ReduceMax(g.Mul(x, x), [0], 1), g.scalar(1e-30)))
  const scaled = g.Mul(x, g.Div(g.scalar(RANGE), largest))
  const zero = g.constant('uint8', [], Uint8Array.of(RANGE))
  const right = g.QuantizeLinear(scaled, g.scalar(1), g.constant('int8', [], new Int8Array(1)))
  const left = g.Transpose(g.QuantizeLinear(scaled, g.scalar(1), zero), [1, 0])
  const strips: { from: number; value: Value }[] = []
  for (let from = 0; from < width; from += STRIP) {
    const rows = g.Slice(left, 0, from, Math.min(STRIP, width - from))
    const columns = g.Slice(right, 1, from, width - from)
    strips.push({ from, value: g.MatMulInteger(rows, columns, zero) })
  }
  return { width, largest, strips }
}

/** Adds what a run gave for Xᵀ·X to the upper triangle of `sum` [width, width]; the lower one stays as it is. */
export function addGram(
  sum: Float32Array,
  { width, largest, strips }: Gram,
  results: Record<string, Tensor>,
): void {
  const steps = (results[largest.name]!.data as Float32Array).map((value) => value / RANGE)
  for (const { from, value } of strips) {
    const { data, dims } = results[value.name]!
    addStrip(sum, width, from, data as Int32Array, dims as [number, number], steps)
  }
}

function addStrip(
  sum: Float32Array,
  width: number,
  from: number,
  products: Int32Array,
  [rows, columns]: readonly [number, number],
  steps: Float32Array,
): void {
  for (let row = 0; row < rows; row++) {
    const step = steps[from + row]!
    const to = (from + row) * width + from
    const at = row * columns
    for (let column = row; column < columns; column++) {
      sum[to + column]! += products[at + column]! * step * steps[from + column]!
    }
  }
}
