import { describe, expect, it } from 'vitest'
import type { KvRow } from '../../../engine/generate/kv-group.ts'
import { KvPool } from '../../../engine/generate/kv-pool.ts'
import type { FedPast } from '../../../engine/generate/past.ts'

const shape = { layers: 2, keyValueHeads: 3, headDim: 4 }
const tensors = 2 * shape.layers
const heads = shape.keyValueHeads

/** What token `token` of sequence `name` has in tensor `index` at head `head`: numbers that nothing else has. */
const content = (name: number, index: number, head: number, token: number) =>
  ((name * 500 + token) * tensors + index) * heads + head + 1

function append(row: KvRow, name: number, count: number): void {
  const present = new Float32Array(tensors * heads * count * shape.headDim)
  let at = 0
  for (let index = 0; index < tensors; index++) {
    for (let head = 0; head < heads; head++) {
      for (let token = 0; token < count; token++, at += shape.headDim) {
        present.fill(content(name, index, head, row.length + token), at, at + shape.headDim)
      }
    }
  }
  row.group.append(row, present, 1, 0, count)
}

const fed = (row: KvRow) => row.group.past([row.index]) as FedPast

/** What a run would read of the row: its tokens where they belong, and a mask that shows just these. */
function expectWhole(row: KvRow, name: number): void {
  const { tensors: past, mask } = fed(row)
  const places = mask.dims[4]!
  const shown = Array.from(mask.data as Float32Array, (value) => (value === 0 ? 1 : 0))
  expect(shown).toEqual(Array.from({ length: places }, (_, place) => (place < row.length ? 1 : 0)))
  const parts = Object.values(past)
  expect(parts).toHaveLength(tensors)
  for (const [index, { data, dims }] of parts.entries()) {
    expect(dims).toEqual([1, heads, 1, places, shape.headDim])
    for (let head = 0; head < heads; head++) {
      for (let token = 0; token < row.length; token++) {
        const at = (head * places + token) * shape.headDim
        expect(data[at]).toBe(content(name, index, head, token))
        expect(data[at + shape.headDim - 1]).toBe(content(name, index, head, token))
      }
    }
  }
}

describe('KvPool', () => {
  it('keeps every row whole while rows grow, leave, join and move to wider groups', () => {
    const pool = new KvPool(shape, 64 * 1024 ** 2)
    const rows = [1, 2, 3].map((name) => ({ name, row: pool.acquire(100)! }))
    const all = () => {
      for (const { name, row } of rows) expectWhole(row, name)
    }
    for (const { name, row } of rows) append(row, name, 20 * name)
    all()
    append(rows[0]!.row, 1, 60) // past the first step of places
    all()
    pool.release(rows.shift()!.row) // the last row takes its place
    all()
    rows.push({ name: 4, row: pool.acquire(90)! })
    append(rows.at(-1)!.row, 4, 90)
    all()
    expect(pool.reserve(rows[0]!.row, 300)).toBe(true)
    append(rows[0]!.row, 2, 200)
    all()
    expect(new Set(rows.map(({ row }) => row.group)).size).toBe(2)
  })

  it('lets runs attend over few more places than the longest row needs, and over fewer when it is gone', () => {
    const pool = new KvPool(shape, 64 * 1024 ** 2)
    const [short, long] = [pool.acquire(400)!, pool.acquire(400)!]
    expect(short.group).toBe(long.group)
    append(short, 1, 30)
    append(long, 2, 300)
    const places = () => fed(short).mask.dims[4]
    expect(places()).toBe(320)
    pool.release(long)
    expect(places()).toBe(64)
    expectWhole(short, 1)
  })

  it('lays a row out for what is about to come at once', () => {
    const row = new KvPool(shape, 64 * 1024 ** 2).acquire(400, 150)!
    expect(fed(row).mask.dims[4]).toBe(192)
  })
})
