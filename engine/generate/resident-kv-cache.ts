import { type CacheKernels, DeviceCache } from './device-cache.ts'
import type { PastFeeds, SequenceCache } from './past.ts'

/** Places are added in steps of this many tokens. */
const GROWTH = 128

/** Keys and values of one sequence in a device's memory, which a run of the decoder replaces by longer ones. */
export class ResidentKvCache implements SequenceCache {
  length = 0
  readonly #cache: DeviceCache
  readonly #capacity: number

  constructor(kernels: CacheKernels, capacity = 0) {
    this.#cache = new DeviceCache(kernels)
    this.#capacity = capacity
  }

  truncate(length: number): void {
    this.length = Math.min(this.length, length)
  }

  past(count: number): PastFeeds {
    const places = Math.ceil(Math.max(this.length + count, this.#capacity) / GROWTH) * GROWTH
    if (places > this.#cache.places) this.#cache.resize(1, places)
    return { cache: this.#cache, slots: [0] }
  }

  append(_: Float32Array, count: number): void {
    this.length += count
  }

  dispose(): void {
    this.#cache.dispose()
  }
}
