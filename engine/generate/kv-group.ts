import { MASKED } from '../nn/masks.ts'
import { floatTensor } from '../tensor.ts'
import type { CacheShape } from './device-cache.ts'
import type { PastFeeds } from './past.ts'

/** One sequence's keys and values: a row of a group's buffers. The row may move when others leave or it grows. */
export interface KvRow {
  /** Tokens held. */
  length: number
  group: KvGroup
  index: number
}

/** Sequences of similar length, whose keys and values lie together. */
export interface KvGroup {
  /** Places of each row. */
  readonly capacity: number
  readonly rows: KvRow[]
  /** Rows that memory is there for; 0 where it has been lost. */
  readonly allocated: number
  /** Makes room for `rows` rows in all; their content moves along. */
  allocate(rows: number): void
  /** The rows of a run that is to compute those with the given indices: these, or others along with them. */
  batchOf(indices: readonly number[]): readonly number[]
  /** The past of such rows, or of one that is `empty`. */
  past(batch: readonly number[], empty?: boolean): PastFeeds
  add(row: KvRow): void
  /** Takes a row out; another may move into its place. */
  remove(row: KvRow): void
  /** Copies the content of row `from` of another group (or this one) into `row`. */
  copyInto(row: KvRow, source: KvGroup, from: number): void
  /** Appends tokens of sequence `sequence` of a run's `present` [2·layers, batch, kvHeads, seq, headDim]. */
  append(row: KvRow, present: Float32Array, batch: number, sequence: number, seq: number): void
  /** Copies `count` tokens from `first` on into `block` [2·layers, kvHeads, count, headDim]. */
  read(row: KvRow, first: number, count: number, block: Float32Array): void
  /** Frees its memory. */
  drop(): void
}

/**
 * A group in the host's memory: keys and values lie side by side, per layer [rows, kvHeads, capacity, headDim], so
 * that the first n rows, or any single one, are a graph input without a copy.
 */
export class HostKvGroup implements KvGroup {
  readonly capacity: number
  readonly rows: KvRow[] = []
  readonly #shape: CacheShape
  #allocated = 0
  #tensors: Float32Array[] = []
  #masks = new Float32Array(0)
  readonly #feeds = new Map<string, PastFeeds>()

  constructor(shape: CacheShape, capacity: number) {
    this.#shape = shape
    this.capacity = capacity
  }

  /** Rows that memory is there for. */
  get allocated(): number {
    return this.#allocated
  }

  /** Makes room for `rows` rows in all; their content moves along. */
  allocate(rows: number): void {
    const { layers, keyValueHeads, headDim } = this.#shape
    const size = keyValueHeads * this.capacity * headDim
    const kept = this.rows.length
    for (let index = 0; index < 2 * layers; index++) {
      const grown = new Float32Array(rows * size)
      if (kept > 0) grown.set(this.#tensors[index]!.subarray(0, kept * size))
      this.#tensors[index] = grown
    }
    const masks = new Float32Array(rows * this.capacity).fill(MASKED)
    masks.set(this.#masks.subarray(0, kept * this.capacity))
    this.#masks = masks
    this.#allocated = rows
    this.#feeds.clear()
  }

  /** Rows are fed from the first to the last one; those between are computed along. */
  batchOf(indices: readonly number[]): readonly number[] {
    return Array.from({ length: Math.max(...indices) + 1 }, (_, index) => index)
  }

  past(batch: readonly number[], empty = false): PastFeeds {
    return empty ? this.#noPast(batch.length) : this.#feedsOf(batch[0]!, batch.length)
  }

  drop(): void {
    this.#tensors = []
  }

  /** The past of `count` rows from `first` on, as graph inputs that stay true while rows grow. */
  #feedsOf(first: number, count: number): PastFeeds {
    const key = `${first}:${count}`
    const known = this.#feeds.get(key)
    if (known) return known
    const { layers, keyValueHeads, headDim } = this.#shape
    const size = keyValueHeads * this.capacity * headDim
    const dims = [count, keyValueHeads, 1, this.capacity, headDim]
    const tensor = (index: number) =>
      floatTensor(this.#tensors[index]!.subarray(first * size, (first + count) * size), dims)
    const tensors: Record<string, ReturnType<typeof tensor>> = {}
    for (let layer = 0; layer < layers; layer++) {
      tensors[`past_key.${layer}`] = tensor(2 * layer)
      tensors[`past_value.${layer}`] = tensor(2 * layer + 1)
    }
    const masks = this.#masks.subarray(first * this.capacity, (first + count) * this.capacity)
    const feeds = { tensors, mask: floatTensor(masks, [count, 1, 1, 1, this.capacity]) }
    this.#feeds.set(key, feeds)
    return feeds
  }

  /** The past of `count` sequences that have none. */
  #noPast(count: number): PastFeeds {
    const key = `none:${count}`
    const known = this.#feeds.get(key)
    if (known) return known
    const { layers, keyValueHeads, headDim } = this.#shape
    const nothing = floatTensor(new Float32Array(0), [count, keyValueHeads, 1, 0, headDim])
    const names = Array.from({ length: layers }, (_, layer) => [`past_key.${layer}`, `past_value.${layer}`])
    const tensors = Object.fromEntries(names.flat().map((name) => [name, nothing]))
    const feeds = { tensors, mask: floatTensor(new Float32Array(0), [count, 1, 1, 1, 0]) }
    this.#feeds.set(key, feeds)
    return feeds
  }

  add(row: KvRow): void {
    row.group = this
    row.index = this.rows.length
    this.rows.push(row)
    this.#showPlaces(row)
  }

  /** Takes a row out; the last one moves into its place. */
  remove(row: KvRow): void {
    const last = this.rows.pop()!
    if (last === row) return
    const from = last.index
    last.index = row.index
    this.rows[last.index] = last
    this.copyInto(last, this, from)
  }

  /** Copies the content of row `from` of another group (or this one) into `row`. */
  copyInto(row: KvRow, source: KvGroup, from: number): void {
    const { keyValueHeads, headDim } = this.#shape
    const run = row.length * headDim
    for (const [index, tensor] of this.#tensors.entries()) {
      for (let head = 0; head < keyValueHeads; head++) {
        const start = (from * keyValueHeads + head) * source.capacity * headDim
        tensor.set(
          (source as HostKvGroup).#tensors[index]!.subarray(start, start + run),
          this.#start(row, head),
        )
      }
    }
    this.#showPlaces(row)
  }

  /** Appends tokens of sequence `sequence` of a run's `present` [2·layers, batch, kvHeads, seq, headDim]. */
  append(row: KvRow, present: Float32Array, batch: number, sequence: number, seq: number): void {
    const { keyValueHeads, headDim } = this.#shape
    const run = seq * headDim
    for (let index = 0; index < this.#tensors.length; index++) {
      const tensor = this.#tensors[index]!
      for (let head = 0; head < keyValueHeads; head++) {
        const from = ((index * batch + sequence) * keyValueHeads + head) * run
        tensor.set(present.subarray(from, from + run), this.#start(row, head) + row.length * headDim)
      }
    }
    const place = row.index * this.capacity + row.length
    this.#masks.fill(0, place, place + seq)
    row.length += seq
  }

  /** Copies `count` tokens from `first` on into `block` [2·layers, kvHeads, count, headDim]. */
  read(row: KvRow, first: number, count: number, block: Float32Array): void {
    const { keyValueHeads, headDim } = this.#shape
    let to = 0
    for (const tensor of this.#tensors) {
      for (let head = 0; head < keyValueHeads; head++) {
        const start = this.#start(row, head) + first * headDim
        block.set(tensor.subarray(start, start + count * headDim), to)
        to += count * headDim
      }
    }
  }

  #start(row: KvRow, head: number): number {
    return (row.index * this.#shape.keyValueHeads + head) * this.capacity * this.#shape.headDim
  }

  #showPlaces(row: KvRow): void {
    const start = row.index * this.capacity
    this.#masks.fill(0, start, start + row.length).fill(MASKED, start + row.length, start + this.capacity)
  }
}
