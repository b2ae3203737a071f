import type { LayerWeights, LinearGroup } from '../quant/layer-graph.ts'

export interface MatrixError {
  readonly name: string
  /** |W − Ŵ| / |W| in the Frobenius norm. */
  readonly error: number
}

/** Factors that turn an exported matrix [out, in] back into one of unscaled inputs and outputs. */
interface Factors {
  inputs?: Float32Array
  outputs?: Float32Array
}

/** Errors of the matrices of a layer that changed. */
export function matrixErrors(
  original: LayerWeights,
  exported: LayerWeights,
  factors: ReadonlyMap<string, Factors> = new Map(),
): MatrixError[] {
  const errors: MatrixError[] = []
  for (const [name, { data, dims }] of original) {
    if (dims.length !== 2) continue
    const values = exported.get(name)!.data as Float32Array
    const scaled = factors.get(name)
    const error = relativeError(data as Float32Array, scaled ? unscaled(values, scaled) : values)
    if (error > 0) errors.push({ name, error })
  }
  return errors
}

/**
 * What AWQ did to a layer's matrices, found from the weights: W' = W·diag(s), and what stands before W is divided by s. Of a
 * norm that is exact; of rows W_b' ≈ diag(1/s)·W_b, which are rounded as well, s is the least squares' one,
 * s_r = w_r·w_r / (w'_r·w_r).
 *
 * @param normOffset what the family adds to a norm's weights.
 */
export function scaledInputs(
  groups: readonly LinearGroup[],
  normOffset: number,
  original: LayerWeights,
  exported: LayerWeights,
): Map<string, Factors> {
  const factors = new Map<string, Factors>()
  const add = (name: string, more: Factors) => factors.set(name, { ...factors.get(name), ...more })
  for (const { before, modules } of groups) {
    if (!before) continue
    const name = 'norm' in before ? before.norm : `${before.rows}.weight`
    const [a, b] = [valuesOf(original, name), valuesOf(exported, name)]
    const scales =
      'norm' in before
        ? a.map((value, i) => (value + normOffset) / (b[i]! + normOffset))
        : rowScales(a, b, original.get(name)!.dims[0]!)
    if ('rows' in before) add(name, { outputs: scales })
    for (const { path } of modules) add(`${path}.weight`, { inputs: scales.map((scale) => 1 / scale) })
  }
  return factors
}

const valuesOf = (weights: LayerWeights, name: string) => weights.get(name)!.data as Float32Array

function rowScales(original: Float32Array, exported: Float32Array, rows: number): Float32Array {
  const columns = original.length / rows
  return Float32Array.from({ length: rows }, (_, row) => {
    let [own, both] = [0, 0]
    for (let i = row * columns; i < (row + 1) * columns; i++) {
      own += original[i]! ** 2
      both += original[i]! * exported[i]!
    }
    return both > 0 ? own / both : 1
  })
}

function unscaled(values: Float32Array, { inputs, outputs }: Factors): Float32Array {
  const columns = inputs?.length ?? values.length / outputs!.length
  return values.map((value, i) => {
    return value * (inputs ? inputs[i % columns]! : 1) * (outputs ? outputs[Math.floor(i / columns)]! : 1)
  })
}

/** |a − b| / |a| in the Frobenius norm. */
export function relativeError(a: Float32Array, b: Float32Array): number {
  let error = 0
  let size = 0
  for (let i = 0; i < a.length; i++) {
    error += (a[i]! - b[i]!) ** 2
    size += a[i]! ** 2
  }
  return size === 0 ? 0 : Math.sqrt(error / size)
}
