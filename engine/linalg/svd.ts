import { createRandom } from '../random.ts'
import {
  firstColumns,
  gram,
  type Matrix,
  multiply,
  multiplyTransposed,
  orthonormalize,
  transpose,
  zeros,
} from './matrix.ts'
import { symmetricEigen } from './symmetric-eigen.ts'

/** The largest singular values of W [m, n] and their vectors: W ≈ u·diag(s)·vᵀ. */
export interface TruncatedSvd {
  /** [m, rank] */
  readonly u: Matrix
  /** [rank], largest first. */
  readonly s: Float64Array
  /** [n, rank] */
  readonly v: Matrix
}

/**
 * The exact decomposition, by the eigenvectors of W·Wᵀ or Wᵀ·W, whichever is smaller. In double precision the squares
 * cost no digit that float32 weights have.
 */
export function exactSvd(w: Matrix, rank: number): TruncatedSvd {
  if (w.rows > w.columns) {
    const { u, s, v } = exactSvd(transpose(w), rank)
    return { u: v, s, v: u }
  }
  const { values, vectors } = symmetricEigen(gram(w))
  return fromLeft(w, firstColumns(vectors, rank), values)
}

/** Extra directions that are followed and dropped at the end: they make the last kept ones accurate. */
const OVERSAMPLING = 8

/**
 * A randomized decomposition (Halko, Martinsson and Tropp 2011, arXiv:0909.4061, algorithms 4.4 and 5.1): the range of
 * (W·Wᵀ)^iterations·W is found from random directions, and W is decomposed inside it. Fixed by its seed.
 */
export function randomizedSvd(w: Matrix, rank: number, iterations: number, seed: number): TruncatedSvd {
  if (w.rows > w.columns) {
    const { u, s, v } = randomizedSvd(transpose(w), rank, iterations, seed)
    return { u: v, s, v: u }
  }
  const directions = Math.min(rank + OVERSAMPLING, w.rows, w.columns)
  const random = createRandom(seed)
  const start = zeros(w.columns, directions)
  for (let i = 0; i < start.data.length; i++) start.data[i] = random.nextGaussian()
  // W·Wᵀ costs rows² · columns once; going through W twice costs 4 · rows · columns · directions in each iteration.
  const square = w.rows < 4 * directions * iterations ? gram(w) : undefined
  let range = orthonormalize(multiply(w, start))
  for (let i = 0; i < iterations; i++) {
    const next = square ? multiply(square, range) : multiply(w, orthonormalize(multiplyTransposed(w, range)))
    range = orthonormalize(next)
  }
  const inside = multiplyTransposed(range, w)
  const { values, vectors } = symmetricEigen(gram(inside))
  const { u, s, v } = fromLeft(inside, firstColumns(vectors, rank), values)
  return { u: multiply(range, u), s, v }
}

/** s and v of the left vectors u: v = Wᵀ·u / s. Directions without any weight get zeros. */
function fromLeft(w: Matrix, u: Matrix, squares: Float64Array): TruncatedSvd {
  const s = Float64Array.from({ length: u.columns }, (_, i) => Math.sqrt(Math.max(0, squares[i] ?? 0)))
  const v = multiplyTransposed(w, u)
  const floor = 1e-12 * (s[0] ?? 0)
  for (let i = 0; i < v.data.length; i++) {
    const length = s[i % u.columns]!
    v.data[i] = length > floor ? v.data[i]! / length : 0
  }
  return { u, s, v }
}
