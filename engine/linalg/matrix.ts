/** A dense matrix in double precision, row by row. */
export interface Matrix {
  readonly rows: number
  readonly columns: number
  readonly data: Float64Array
}

export function zeros(rows: number, columns: number): Matrix {
  return { rows, columns, data: new Float64Array(rows * columns) }
}

/** The matrix of a float32 tensor of two dimensions, copied. */
export function toMatrix(data: Float32Array, [rows, columns]: readonly [number, number]): Matrix {
  return { rows, columns, data: Float64Array.from(data) }
}

export function transpose({ rows, columns, data }: Matrix): Matrix {
  const result = zeros(columns, rows)
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) result.data[j * rows + i] = data[i * columns + j]!
  }
  return result
}

/** a·b. */
export function multiply(a: Matrix, b: Matrix): Matrix {
  const result = zeros(a.rows, b.columns)
  for (let i = 0; i < a.rows; i++) {
    for (let k = 0; k < a.columns; k++) addRow(result, i, a.data[i * a.columns + k]!, b, k)
  }
  return result
}

/** aᵀ·b, without writing aᵀ out. */
export function multiplyTransposed(a: Matrix, b: Matrix): Matrix {
  const result = zeros(a.columns, b.columns)
  for (let k = 0; k < a.rows; k++) {
    for (let i = 0; i < a.columns; i++) addRow(result, i, a.data[k * a.columns + i]!, b, k)
  }
  return result
}

/** Row i of `target` += factor · row k of b. */
function addRow(
  target: Matrix,
  i: number,
  factor: number,
  { columns, data: values }: Matrix,
  k: number,
): void {
  const sums = target.data
  let at = i * columns
  const end = (k + 1) * columns
  for (let from = k * columns; from < end; from++, at++) sums[at]! += factor * values[from]!
}

/** a·aᵀ: symmetric, so that half of it is computed. */
export function gram(a: Matrix): Matrix {
  const { rows, columns, data } = a
  const result = zeros(rows, rows)
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = 0
      for (let k = 0; k < columns; k++) sum += data[i * columns + k]! * data[j * columns + k]!
      result.data[i * rows + j] = sum
      result.data[j * rows + i] = sum
    }
  }
  return result
}

/** The first `count` columns. */
export function firstColumns({ rows, columns, data }: Matrix, count: number): Matrix {
  const result = zeros(rows, count)
  for (let i = 0; i < rows; i++) {
    result.data.set(data.subarray(i * columns, i * columns + count), i * count)
  }
  return result
}

/**
 * An orthonormal basis of the columns' span (Gram-Schmidt, twice over, which keeps it orthogonal to machine precision).
 * A column that depends on the earlier ones becomes zero.
 */
export function orthonormalize(a: Matrix): Matrix {
  const basis = transpose(a)
  const { rows: count, columns: length, data } = basis
  const row = (i: number) => data.subarray(i * length, (i + 1) * length)
  for (let i = 0; i < count; i++) {
    const current = row(i)
    const before = norm(current)
    for (let pass = 0; pass < 2; pass++) {
      for (let j = 0; j < i; j++) {
        const other = row(j)
        const projection = dot(current, other)
        for (let k = 0; k < length; k++) current[k]! -= projection * other[k]!
      }
    }
    const after = norm(current)
    const scale = after > 1e-14 * before ? 1 / after : 0
    for (let k = 0; k < length; k++) current[k]! *= scale
  }
  return transpose(basis)
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}

export function norm(a: Float64Array): number {
  return Math.sqrt(dot(a, a))
}
