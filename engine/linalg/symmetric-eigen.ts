import { type Matrix, zeros } from './matrix.ts'

/** Eigenvalues, largest first, and the eigenvectors as the columns of `vectors`. */
export interface Eigen {
  readonly values: Float64Array
  readonly vectors: Matrix
}

/**
 * All eigenvalues and eigenvectors of a symmetric matrix: Householder reflections to a tridiagonal form, then QL steps
 * with implicit shifts (Golub and Van Loan, Matrix Computations, 8.3). About 6 n³ operations.
 */
export function symmetricEigen(matrix: Matrix): Eigen {
  const n = matrix.rows
  // Eigenvectors are kept as rows while rotating, so that a rotation touches two contiguous rows.
  const { diagonal, offDiagonal, basis } = tridiagonalize(matrix)
  for (let l = 0; l < n; l++) deflate(l, diagonal, offDiagonal, basis)
  const order = Array.from(diagonal.keys()).sort((a, b) => diagonal[b]! - diagonal[a]!)
  const vectors = zeros(n, n)
  for (const [column, index] of order.entries()) {
    for (let i = 0; i < n; i++) vectors.data[i * n + column] = basis.data[index * n + i]!
  }
  return { values: Float64Array.from(order, (index) => diagonal[index]!), vectors }
}

/** Qᵀ·A·Q = T: T's two diagonals, and Qᵀ. Column k is reduced by the reflection I - 2vvᵀ that maps it onto an axis. */
function tridiagonalize(matrix: Matrix): {
  diagonal: Float64Array
  offDiagonal: Float64Array
  basis: Matrix
} {
  const n = matrix.rows
  const a = matrix.data.slice()
  const basis = zeros(n, n)
  for (let i = 0; i < n; i++) basis.data[i * n + i] = 1
  const reflections: { start: number; v: Float64Array }[] = []
  for (let k = 0; k + 2 < n; k++) {
    const v = reflector(a, n, k)
    if (!v) continue
    reflectBothSides(a, n, k + 1, v)
    reflections.push({ start: k + 1, v })
  }
  for (const { start, v } of reflections) reflectRows(basis.data, n, start, v)
  const offDiagonal = new Float64Array(n)
  for (let i = 0; i + 1 < n; i++) offDiagonal[i] = a[(i + 1) * n + i]!
  return { diagonal: Float64Array.from({ length: n }, (_, i) => a[i * n + i]!), offDiagonal, basis }
}

/** The unit vector v over k+1… whose reflection zeroes column k below its first subdiagonal; null if it is zero already. */
function reflector(a: Float64Array, n: number, k: number): Float64Array | null {
  const v = Float64Array.from({ length: n - k - 1 }, (_, i) => a[(k + 1 + i) * n + k]!)
  let below = 0
  for (let i = 1; i < v.length; i++) below += v[i]! * v[i]!
  if (below === 0) return null
  v[0]! += Math.sign(v[0]! || 1) * Math.sqrt(v[0]! * v[0]! + below)
  const length = Math.sqrt(v[0]! * v[0]! + below)
  for (let i = 0; i < v.length; i++) v[i]! /= length
  return v
}

/** A ← H·A·H for H = I - 2vvᵀ on the rows and columns from `start`: A - 2(vwᵀ + wvᵀ) with w = Av - (vᵀAv)v. */
function reflectBothSides(a: Float64Array, n: number, start: number, v: Float64Array): void {
  const size = v.length
  const w = new Float64Array(size)
  let inner = 0
  for (let i = 0; i < size; i++) {
    const row = (start + i) * n + start
    let sum = 0
    for (let j = 0; j < size; j++) sum += a[row + j]! * v[j]!
    w[i] = sum
    inner += v[i]! * sum
  }
  for (let i = 0; i < size; i++) w[i]! -= inner * v[i]!
  for (let i = 0; i < size; i++) {
    const row = (start + i) * n + start
    for (let j = 0; j < size; j++) a[row + j]! -= 2 * (v[i]! * w[j]! + w[i]! * v[j]!)
  }
  const column = start - 1
  let along = 0
  for (let i = 0; i < size; i++) along += v[i]! * a[(start + i) * n + column]!
  for (let i = 0; i < size; i++) {
    a[(start + i) * n + column]! -= 2 * along * v[i]!
    a[column * n + start + i] = a[(start + i) * n + column]!
  }
}

/** M ← H·M, where M's rows before `start` stay. */
function reflectRows(m: Float64Array, n: number, start: number, v: Float64Array): void {
  const along = new Float64Array(n)
  for (let i = 0; i < v.length; i++) {
    for (let j = 0; j < n; j++) along[j]! += v[i]! * m[(start + i) * n + j]!
  }
  for (let i = 0; i < v.length; i++) {
    for (let j = 0; j < n; j++) m[(start + i) * n + j]! -= 2 * v[i]! * along[j]!
  }
}

/** QL steps with Wilkinson's shift until the eigenvalue at `l` stands alone. */
function deflate(l: number, d: Float64Array, e: Float64Array, basis: Matrix): void {
  const n = d.length
  for (let iteration = 0; ; iteration++) {
    let m = l
    while (m + 1 < n && Math.abs(e[m]!) > Number.EPSILON * (Math.abs(d[m]!) + Math.abs(d[m + 1]!))) m++
    if (m === l) return
    if (iteration === 60) throw new Error('the eigenvalue iteration does not converge')
    qlStep(l, m, d, e, basis)
  }
}

/** One sweep of rotations from m up to l, chasing the bulge that the shift makes. */
function qlStep(l: number, m: number, d: Float64Array, e: Float64Array, basis: Matrix): void {
  const p = (d[l + 1]! - d[l]!) / (2 * e[l]!)
  let g = d[m]! - d[l]! + e[l]! / (p + Math.sign(p || 1) * Math.hypot(p, 1))
  let sine = 1
  let cosine = 1
  let shift = 0
  for (let i = m - 1; i >= l; i--) {
    const f = sine * e[i]!
    const b = cosine * e[i]!
    const r = Math.hypot(f, g)
    e[i + 1] = r
    if (r === 0) {
      d[i + 1]! -= shift
      e[m] = 0
      return
    }
    sine = f / r
    cosine = g / r
    const difference = d[i + 1]! - shift
    const t = (d[i]! - difference) * sine + 2 * cosine * b
    shift = sine * t
    d[i + 1] = difference + shift
    g = cosine * t - b
    rotateRows(basis, i, sine, cosine)
  }
  d[l]! -= shift
  e[l] = g
  e[m] = 0
}

function rotateRows({ columns, data }: Matrix, i: number, sine: number, cosine: number): void {
  const upper = i * columns
  const lower = upper + columns
  for (let k = 0; k < columns; k++) {
    const a = data[upper + k]!
    const b = data[lower + k]!
    data[lower + k] = sine * a + cosine * b
    data[upper + k] = cosine * a - sine * b
  }
}
