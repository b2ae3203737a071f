import { MASKED } from '../nn/masks.ts'
import { floatTensor } from '../tensor.ts'
import type { CacheShape } from './device-cache.ts'
import type { PastFeeds } from './past.ts'

/** Rows are laid out in steps of this many places, or of a sixteenth of them where that is more. */
const STEP = 64
/** More bytes than this are not moved, but laid out at their capacity: to move them would keep streams waiting. */
const MOST_MOVED = 256 * 1024 ** 2

/** One sequence's keys and values: a row of a group's buffers. The row may move when others leave or it grows. */
export interface KvRow {
  /** Tokens held. */
  length: number
  group: KvGroup
  index: number
}

/** Sequences of similar length, whose keys and values lie together. */
export interface KvGroup {
  /** Places of a row that memory is there for. */
  readonly capacity: number
  readonly rows: KvRow[]
  /** Rows that memory is there for; 0 where it has been lost. */
  readonly allocated: number
  /** Whether memory without rows still holds what earlier ones began with. */
  readonly holdsPrefixes: boolean
  /** Makes room for `rows` rows in all; their content moves along. */
  allocate(rows: number): void
  /** The rows of a run that is to compute those with the given indices: these, or others along with them. */
  batchOf(indices: readonly number[]): readonly number[]
  /** The past of such rows, or of one that is `empty`. */
  past(batch: readonly number[], empty?: boolean): PastFeeds
  /** @param soon how many tokens the row will hold soon */
  add(row: KvRow, soon?: number): void
  /** Takes a row out; another may move into its place. */
  remove(row: KvRow): void
  /** Copies the first `row.length` tokens of row `from` of another group (or this one) into `row`. */
  copyInto(row: KvRow, source: KvGroup, from: number): void
  /**
   * Appends tokens of sequence `sequence` of a run's `present` [2·layers, batch, kvHeads, seq, headDim].
   * @param count the first of them that count; all by default
   */
  append(
    row: KvRow,
    present: Float32Array,
    batch: number,
    sequence: number,
    seq: number,
    count?: number,
  ): void
  /** Copies `count` tokens from `first` on into `block` [2·layers, kvHeads, count, headDim]. */
  read(row: KvRow, first: number, count: number, block: Float32Array): void
  /** Frees its memory. */
  drop(): void
}

/**
 * A group in the host's memory: keys and values lie side by side, per layer [rows, kvHeads, places, headDim], so that the
 * first n rows, or any single one, are a graph input without a copy. A run attends over all places, so there are hardly
 * more of them than the longest row needs: the rows move apart within their memory as it grows.
 */
export class HostKvGroup implements KvGroup {
  readonly capacity: number
  readonly holdsPrefixes = false
  readonly rows: KvRow[] = []
  readonly #shape: CacheShape
  #allocated = 0
  /** Places of a row as the rows are laid out now. */
  #places = 0
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
    const kept = this.rows.length * keyValueHeads * this.#places * headDim
    for (let index = 0; index < 2 * layers; index++) {
      const grown = new Float32Array(rows * keyValueHeads * this.capacity * headDim)
      if (kept > 0) grown.set(this.#tensors[index]!.subarray(0, kept))
      this.#tensors[index] = grown
    }
    this.#masks = new Float32Array(rows * this.capacity)
    this.#allocated = rows
    this.#showAllPlaces()
  }

  /** Lays the rows out with places for `tokens` tokens at least; at most their capacity. */
  #widen(tokens: number): void {
    if (tokens <= this.#places) return
    this.#layOut(this.#movable ? Math.min(this.capacity, placesFor(tokens)) : this.capacity)
  }

  /** Gives places up that no row has needed for long. */
  #narrow(): void {
    const places = placesFor(this.rows.reduce((longest, { length }) => Math.max(longest, length), 0))
    if (2 * places <= this.#places && this.#movable) this.#layOut(places)
  }

  get #movable(): boolean {
    const { layers, keyValueHeads, headDim } = this.#shape
    const tokens = this.rows.reduce((sum, { length }) => sum + length, 0)
    return tokens * 2 * layers * keyValueHeads * headDim * 4 <= MOST_MOVED
  }

  #layOut(places: number): void {
    const { keyValueHeads, headDim } = this.#shape
    const runs = this.rows.length * keyValueHeads
    for (const tensor of this.#tensors) {
      for (let done = 0; done < runs; done++) {
        // moving apart the last goes first, moving together the first: none is written over before it has moved
        const run = places > this.#places ? runs - 1 - done : done
        const from = run * this.#places * headDim
        const { length } = this.rows[Math.floor(run / keyValueHeads)]!
        tensor.copyWithin(run * places * headDim, from, from + length * headDim)
      }
    }
    this.#places = places
    this.#showAllPlaces()
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

  /** The past of `count` rows from `first` on, as graph inputs that stay true while rows grow within their places. */
  #feedsOf(first: number, count: number): PastFeeds {
    const key = `${first}:${count}`
    const known = this.#feeds.get(key)
    if (known) return known
    const { layers, keyValueHeads, headDim } = this.#shape
    const places = this.#places
    const size = keyValueHeads * places * headDim
    const dims = [count, keyValueHeads, 1, places, headDim]
    const tensor = (index: number) =>
      floatTensor(this.#tensors[index]!.subarray(first * size, (first + count) * size), dims)
    const tensors: Record<string, ReturnType<typeof tensor>> = {}
    for (let layer = 0; layer < layers; layer++) {
      tensors[`past_key.${layer}`] = tensor(2 * layer)
      tensors[`past_value.${layer}`] = tensor(2 * layer + 1)
    }
    const masks = this.#masks.subarray(first * places, (first + count) * places)
    const feeds = { tensors, mask: floatTensor(masks, [count, 1, 1, 1, places]) }
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

  add(row: KvRow, soon = 0): void {
    row.group = this
    row.index = this.rows.length
    this.rows.push(row)
    this.#widen(Math.max(row.length, soon))
    this.#showPlaces(row)
  }

  /** Takes a row out; the last one moves into its place. */
  remove(row: KvRow): void {
    const last = this.rows.pop()!
    if (last !== row) {
      const from = last.index
      last.index = row.index
      this.rows[last.index] = last
      this.copyInto(last, this, from)
    }
    this.#narrow()
  }

  /** Copies the content of row `place` of another group (or this one) into `row`. */
  copyInto(row: KvRow, source: KvGroup, place: number): void {
    const { keyValueHeads, headDim } = this.#shape
    const from = source as HostKvGroup
    const run = row.length * headDim
    for (const [index, tensor] of this.#tensors.entries()) {
      for (let head = 0; head < keyValueHeads; head++) {
        const start = (place * keyValueHeads + head) * from.#places * headDim
        tensor.set(from.#tensors[index]!.subarray(start, start + run), this.#start(row, head))
      }
    }
    this.#showPlaces(row)
  }

  append(row: KvRow, present: Float32Array, batch: number, sequence: number, seq: number, count = seq): void {
    const { keyValueHeads, headDim } = this.#shape
    this.#widen(row.length + count)
    const run = count * headDim
    for (let index = 0; index < this.#tensors.length; index++) {
      const tensor = this.#tensors[index]!
      for (let head = 0; head < keyValueHeads; head++) {
        const from = ((index * batch + sequence) * keyValueHeads + head) * seq * headDim
        copyRun(present, from, tensor, this.#start(row, head) + row.length * headDim, run)
      }
    }
    const place = row.index * this.#places + row.length
    this.#masks.fill(0, place, place + count)
    row.length += count
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
    return (row.index * this.#shape.keyValueHeads + head) * this.#places * this.#shape.headDim
  }

  #showPlaces(row: KvRow): void {
    const start = row.index * this.#places
    this.#masks.fill(0, start, start + row.length).fill(MASKED, start + row.length, start + this.#places)
  }

  #showAllPlaces(): void {
    for (const row of this.rows) this.#showPlaces(row)
    this.#feeds.clear()
  }
}

/** Copies `length` floats; a view for each of the thousand short runs of a step would cost more than their copying. */
function copyRun(source: Float32Array, from: number, target: Float32Array, to: number, length: number): void {
  if (length > 256) target.set(source.subarray(from, from + length), to)
  else for (let i = 0; i < length; i++) target[to + i] = source[from + i]!
}

/** The least number of places that rows are laid out with for `tokens` tokens. */
function placesFor(tokens: number): number {
  const step = Math.max(STEP, Math.ceil(tokens / 16 / STEP) * STEP)
  return Math.ceil(tokens / step) * step
}
