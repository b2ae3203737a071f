import { type CacheKernels, DeviceCache } from './device-cache.ts'
import type { KvGroup, KvRow } from './kv-group.ts'
import type { PastFeeds } from './past.ts'

/**
 * A group in a device's memory. A row is a slot of the cache and keeps it; a run writes the new keys and values itself,
 * so that appending only counts.
 */
export class DeviceKvGroup implements KvGroup {
  readonly capacity: number
  readonly rows: KvRow[] = []
  readonly #cache: DeviceCache

  constructor(kernels: CacheKernels, capacity: number) {
    this.capacity = capacity
    this.#cache = new DeviceCache(kernels)
  }

  get allocated(): number {
    return this.#cache.failure === undefined ? this.#cache.slots : 0
  }

  allocate(rows: number): void {
    this.#cache.resize(rows, this.capacity)
  }

  batchOf(indices: readonly number[]): readonly number[] {
    return indices
  }

  past(batch: readonly number[]): PastFeeds {
    return { cache: this.#cache, slots: batch }
  }

  add(row: KvRow): void {
    const taken = new Set(this.rows.map(({ index }) => index))
    let index = 0
    while (taken.has(index)) index++
    row.group = this
    row.index = index
    this.rows.push(row)
  }

  remove(row: KvRow): void {
    this.rows.splice(this.rows.indexOf(row), 1)
  }

  copyInto(row: KvRow, source: KvGroup, from: number): void {
    this.#cache.copySlot(row.index, (source as DeviceKvGroup).#cache, from)
  }

  append(row: KvRow, _present: Float32Array, _batch: number, _sequence: number, seq: number): void {
    row.length += seq
  }

  read(): void {
    throw new Error('keys and values in a device are not read back')
  }

  drop(): void {
    this.#cache.dispose()
  }
}
