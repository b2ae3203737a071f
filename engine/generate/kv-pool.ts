import { MASKED } from '../nn/masks.ts'
import { floatTensor } from '../tensor.ts'
import type { PastFeeds } from './decoder.ts'

interface CacheShape {
  readonly layers: number
  readonly keyValueHeads: number
  readonly headDim: number
}

/** Places per unit of capacity. */
const UNIT = 128

/** The smallest of 1, 2, 3, 4, 6, 8, 12, 16, … units that holds `tokens`: a row wastes at most a third. */
export function capacityFor(tokens: number): number {
  const units = Math.max(1, Math.ceil(tokens / UNIT))
  const power = 2 ** Math.floor(Math.log2(units))
  if (units === power) return power * UNIT
  return (units <= 1.5 * power && power > 1 ? 1.5 * power : 2 * power) * UNIT
}

/** One sequence's keys and values: a row of a group's buffers. The row may move when others leave or it grows. */
export interface KvRow {
  /** Tokens held. */
  length: number
  group: KvGroup
  index: number
}

/**
 * Sequences of similar length: their keys and values lie side by side, per layer [rows, kvHeads, capacity, headDim], so
 * that the first n rows, or any single one, are a graph input without a copy.
 */
export class KvGroup {
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

  /** The past of `count` rows from `first` on, as graph inputs that stay true while rows grow. */
  feeds(first: number, count: number): PastFeeds {
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
  noPast(count: number): PastFeeds {
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
        tensor.set(source.#tensors[index]!.subarray(start, start + run), this.#start(row, head))
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

/**
 * The memory for keys and values of all running sequences, within a budget. Sequences are grouped by capacity, so that
 * a long one doesn't make short ones attend over its length.
 */
export class KvPool {
  /** Tokens that the budget holds in one sequence. */
  readonly maxTokens: number
  readonly groups: KvGroup[] = []
  readonly #shape: CacheShape
  readonly #bytesPerToken: number
  readonly #budget: number

  constructor(shape: CacheShape, budgetBytes: number) {
    this.#shape = shape
    this.#bytesPerToken = 2 * shape.layers * shape.keyValueHeads * shape.headDim * 4
    this.#budget = budgetBytes
    this.maxTokens = Math.floor(budgetBytes / this.#bytesPerToken / UNIT) * UNIT
  }

  get bytesPerToken(): number {
    return this.#bytesPerToken
  }

  get allocatedBytes(): number {
    return this.groups.reduce((sum, { capacity, allocated }) => sum + this.#bytes(capacity, allocated), 0)
  }

  /** Floats of `tokens` tokens. */
  blockSize(tokens: number): number {
    return (this.#bytesPerToken / 4) * tokens
  }

  /** A row with places for `tokens` tokens at once, or undefined when the budget has no room now. */
  acquire(tokens: number): KvRow | undefined {
    const group = this.#groupFor(tokens)
    if (!group) return undefined
    const row: KvRow = { length: 0, group, index: 0 }
    group.add(row)
    return row
  }

  /** Makes sure that a row has places for `tokens` tokens in all; false when the budget has no room now. */
  reserve(row: KvRow, tokens: number): boolean {
    const old = row.group
    if (tokens <= old.capacity) return true
    const group = this.#groupFor(tokens)
    if (!group) return false
    const moved: KvRow = { ...row }
    group.add(moved)
    group.copyInto(moved, old, row.index)
    old.remove(row)
    Object.assign(row, moved)
    group.rows[row.index] = row
    this.#dropEmpty(old)
    return true
  }

  release(row: KvRow): void {
    row.group.remove(row)
  }

  /** A group with a free row: one that is there, at most twice as wide as needed, or a new one. */
  #groupFor(tokens: number): KvGroup | undefined {
    const capacity = Math.min(capacityFor(tokens), Math.max(this.maxTokens, UNIT))
    if (tokens > capacity) return undefined
    const fitting = this.groups
      .filter((group) => group.capacity >= capacity && group.capacity <= 2 * capacity)
      .sort((a, b) => a.capacity - b.capacity)
    for (const group of fitting) {
      if (group.rows.length < group.allocated || this.#grow(group)) return group
    }
    for (const group of [...this.groups]) this.#dropEmpty(group)
    const group = new KvGroup(this.#shape, capacity)
    if (!this.#grow(group)) return undefined
    this.groups.push(group)
    return group
  }

  #grow(group: KvGroup): boolean {
    const { allocated, capacity } = group
    for (const rows of [Math.max(1, 2 * allocated), allocated + 1]) {
      if (this.allocatedBytes + this.#bytes(capacity, rows - allocated) > this.#budget) continue
      group.allocate(rows)
      return true
    }
    return false
  }

  #dropEmpty(group: KvGroup): void {
    if (group.rows.length === 0) this.groups.splice(this.groups.indexOf(group), 1)
  }

  #bytes(capacity: number, rows: number): number {
    return capacity * rows * this.#bytesPerToken
  }
}
