import { type CacheKernels, DeviceCache } from './device-cache.ts'
import type { KvGroup, KvRow } from './kv-group.ts'
import type { PastFeeds } from './past.ts'

/** What a slot holds from its first place on. */
export interface HeldPrefix {
  readonly adapter: string
  readonly tokens: Int32Array
}

/**
 * A group in a device's memory. A row is a slot of the cache and keeps it; a run writes the new keys and values itself,
 * so that appending only counts. A slot without a row keeps its content until another row takes it.
 */
export class DeviceKvGroup implements KvGroup {
  readonly capacity: number
  readonly rows: KvRow[] = []
  /** What is known of slots, with rows or without, the least recently held first. */
  readonly held = new Map<number, HeldPrefix>()
  readonly #cache: DeviceCache

  constructor(kernels: CacheKernels, capacity: number) {
    this.capacity = capacity
    this.#cache = new DeviceCache(kernels)
  }

  get allocated(): number {
    return this.#cache.failure === undefined ? this.#cache.slots : 0
  }

  get holdsPrefixes(): boolean {
    return this.held.size > 0 && this.allocated > 0
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
    row.group = this
    row.index = this.#nextSlot() // what it holds is there until the row is written to
    this.rows.push(row)
  }

  /** Gives a row a slot, free or its own, of which it keeps the first `row.length` tokens. */
  takeSlot(row: KvRow, slot: number): void {
    row.index = slot
    this.held.delete(slot)
  }

  isFree(slot: number, forRow?: KvRow): boolean {
    return this.rows.every((row) => row === forRow || row.index !== slot)
  }

  /** Notes what a slot holds, as the newest. */
  hold(slot: number, prefix: HeldPrefix): void {
    this.held.delete(slot)
    this.held.set(slot, prefix)
  }

  /** A free slot: one that holds nothing known, else the one that was held least recently. */
  #nextSlot(): number {
    for (let slot = 0; slot < this.allocated; slot++)
      if (this.isFree(slot) && !this.held.has(slot)) return slot
    return [...this.held.keys()].find((slot) => this.isFree(slot)) ?? this.rows.length
  }

  remove(row: KvRow): void {
    this.rows.splice(this.rows.indexOf(row), 1)
  }

  copyInto(row: KvRow, source: KvGroup, from: number): void {
    this.held.delete(row.index)
    this.#cache.copySlot(row.index, (source as DeviceKvGroup).#cache, from, row.length)
  }

  append(
    row: KvRow,
    _present: Float32Array,
    _batch: number,
    _sequence: number,
    seq: number,
    count = seq,
  ): void {
    if (row.length === 0) this.held.delete(row.index)
    row.length += count
  }

  read(): void {
    throw new Error('keys and values in a device are not read back')
  }

  drop(): void {
    this.#cache.dispose()
  }
}
