import { describe, expect, it } from 'vitest'
import { type Matrix, multiply, multiplyTransposed, transpose, zeros } from '../../../engine/linalg/matrix.ts'
import { exactSvd, randomizedSvd, type TruncatedSvd } from '../../../engine/linalg/svd.ts'
import { symmetricEigen } from '../../../engine/linalg/symmetric-eigen.ts'
import { createRandom } from '../../../engine/random.ts'

function random(rows: number, columns: number, seed: number): Matrix {
  const source = createRandom(seed)
  const matrix = zeros(rows, columns)
  for (let i = 0; i < matrix.data.length; i++) matrix.data[i] = source.nextGaussian()
  return matrix
}

const distance = (a: Matrix, b: Matrix) =>
  a.data.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b.data[i]!)), 0)

const identity = (n: number) => {
  const matrix = zeros(n, n)
  for (let i = 0; i < n; i++) matrix.data[i * n + i] = 1
  return matrix
}

function scaleColumns({ rows, columns, data }: Matrix, s: ArrayLike<number>): Matrix {
  return { rows, columns, data: data.map((value, i) => value * s[i % columns]!) }
}

const rebuilt = ({ u, s, v }: TruncatedSvd) => multiply(scaleColumns(u, s), transpose(v))

describe('symmetricEigen', () => {
  it.each([1, 2, 3, 17, 60])('diagonalises a symmetric %i × %i matrix', (n) => {
    const a = random(n, n, n)
    const symmetric = multiply(a, transpose(a))
    const { values, vectors } = symmetricEigen(symmetric)
    expect(distance(multiplyTransposed(vectors, vectors), identity(n))).toBeLessThan(1e-12)
    expect(distance(multiply(symmetric, vectors), scaleColumns(vectors, values))).toBeLessThan(1e-11 * n)
    expect([...values]).toEqual([...values].sort((x, y) => y - x))
  })

  it('takes matrices that are diagonal or zero already', () => {
    const diagonal = scaleColumns(identity(4), [3, -1, 7, 0])
    expect([...symmetricEigen(diagonal).values]).toEqual([7, 3, 0, -1])
    expect([...symmetricEigen(zeros(3, 3)).values]).toEqual([0, 0, 0])
  })
})

describe('exactSvd', () => {
  it.each([
    [7, 12],
    [12, 7],
    [9, 9],
  ])('of full rank gives a %i × %i matrix back', (rows, columns) => {
    const w = random(rows, columns, 5)
    const svd = exactSvd(w, Math.min(rows, columns))
    expect(distance(rebuilt(svd), w)).toBeLessThan(1e-12)
    expect(distance(multiplyTransposed(svd.u, svd.u), identity(svd.u.columns))).toBeLessThan(1e-12)
  })

  it('cut short leaves exactly the smaller singular values (Eckart and Young)', () => {
    const w = random(10, 14, 6)
    const all = exactSvd(w, 10)
    const rest = rebuilt(exactSvd(w, 4)).data.reduce((sum, value, i) => sum + (value - w.data[i]!) ** 2, 0)
    expect(rest).toBeCloseTo(
      all.s.slice(4).reduce((sum, value) => sum + value * value, 0),
      10,
    )
  })
})

describe('randomizedSvd', () => {
  it('finds what the exact decomposition finds, and the same for the same seed', () => {
    const factors = [0, 1].map((seed) => exactSvd(random(40, 40, seed), 40).u) as [Matrix, Matrix]
    const w = multiply(
      scaleColumns(
        factors[0],
        Array.from({ length: 40 }, (_, i) => 0.8 ** i),
      ),
      transpose(factors[1]),
    )
    const exact = exactSvd(w, 6)
    const found = randomizedSvd(w, 6, 8, 1)
    expect(distance(rebuilt(found), rebuilt(exact))).toBeLessThan(1e-8)
    expect(randomizedSvd(w, 6, 8, 1)).toEqual(found)
  })

  it('takes a matrix of lower rank than asked for', () => {
    const w = multiply(random(9, 2, 1), random(2, 11, 2))
    expect(distance(rebuilt(randomizedSvd(w, 4, 2, 3)), w)).toBeLessThan(1e-10)
  })
})
