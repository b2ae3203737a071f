import type { CacheKernels, CacheShape } from './device-cache.ts'
import { DeviceKvGroup } from './device-kv-group.ts'
import { HostKvGroup, type KvGroup, type KvRow } from './kv-group.ts'

/** Places per unit of capacity. */
const UNIT = 128
/** Rows that a group begins with, as its budget allows. */
const RESERVED_ROWS = [8, 4]

/** The smallest of 1, 2, 3, 4, 6, 8, 12, 16, … units that holds `tokens`: a row wastes at most a third. */
function capacityFor(tokens: number): number {
  const units = Math.max(1, Math.ceil(tokens / UNIT))
  const power = 2 ** Math.floor(Math.log2(units))
  if (units === power) return power * UNIT
  return (units <= 1.5 * power && power > 1 ? 1.5 * power : 2 * power) * UNIT
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
  readonly #kernels: CacheKernels | undefined

  /** @param kernels where keys and values stay in a device's memory; a run may make them anew, so that they are there twice. */
  constructor(shape: CacheShape, budgetBytes: number, kernels?: CacheKernels) {
    this.#shape = shape
    this.#kernels = kernels
    this.#bytesPerToken =
      (kernels?.inPlace === false ? 4 : 2) * shape.layers * shape.keyValueHeads * shape.headDim * 4
    this.#budget = budgetBytes
    this.maxTokens = Math.floor(budgetBytes / this.#bytesPerToken / UNIT) * UNIT
  }

  get bytesPerToken(): number {
    return this.#bytesPerToken
  }

  get allocatedBytes(): number {
    return this.groups.reduce((sum, { capacity, allocated }) => sum + this.#bytes(capacity, allocated), 0)
  }

  /** Bytes of the keys and values that are there. */
  get usedBytes(): number {
    const tokens = this.groups.flatMap(({ rows }) => rows).reduce((sum, { length }) => sum + length, 0)
    return tokens * this.#bytesPerToken
  }

  /** Floats of `tokens` tokens. */
  blockSize(tokens: number): number {
    return (this.#bytesPerToken / 4) * tokens
  }

  /**
   * A row with room for `tokens` tokens, or undefined when the budget has none now.
   * @param soon how many of them will be there soon
   */
  acquire(tokens: number, soon = 0): KvRow | undefined {
    const group = this.#groupFor(tokens)
    if (!group) return undefined
    const row: KvRow = { length: 0, group, index: 0 }
    group.add(row, soon)
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
    group.rows[group.rows.indexOf(moved)] = row
    this.#dropUnused()
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
      .filter((group) => group.allocated > 0 && group.capacity >= capacity && group.capacity <= 2 * capacity)
      .sort((a, b) => a.capacity - b.capacity)
    for (const group of fitting) {
      if (group.rows.length < group.allocated || this.#grow(group)) return group
    }
    const group = this.#kernels
      ? new DeviceKvGroup(this.#kernels, capacity)
      : new HostKvGroup(this.#shape, capacity)
    this.#dropUnused()
    if (!this.#grow(group)) {
      for (const each of [...this.groups]) this.#dropEmpty(each)
      if (!this.#grow(group)) return undefined
    }
    this.groups.push(group)
    return group
  }

  /**
   * To grow is to copy all rows, while streams wait. The host's memory is taken only where it is written to, so rows are
   * reserved generously there, as long as that leaves half of the budget to other groups.
   */
  #grow(group: KvGroup): boolean {
    const { allocated, capacity } = group
    const reserved = RESERVED_ROWS.filter(
      (rows) => !this.#kernels && rows > allocated && this.#bytes(capacity, rows) <= this.#budget / 2,
    )
    for (const rows of [...reserved, Math.max(1, 2 * allocated), allocated + 1]) {
      if (this.allocatedBytes + this.#bytes(capacity, rows - allocated) > this.#budget) continue
      group.allocate(rows)
      return true
    }
    return false
  }

  /** What earlier sequences began with goes only where memory is needed. */
  #dropUnused(): void {
    for (const group of [...this.groups]) if (!group.holdsPrefixes) this.#dropEmpty(group)
  }

  #dropEmpty(group: KvGroup): void {
    if (group.rows.length > 0) return
    this.groups.splice(this.groups.indexOf(group), 1)
    group.drop()
  }

  #bytes(capacity: number, rows: number): number {
    return capacity * rows * this.#bytesPerToken
  }
}
