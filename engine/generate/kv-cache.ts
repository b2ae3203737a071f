import { MASKED } from '../nn/masks.ts'
import { floatTensor, type Tensor } from '../tensor.ts'
import type { PastFeeds, SequenceCache } from './past.ts'

/** Places are added in steps of this many tokens. */
const GROWTH = 128

interface CacheShape {
  readonly layers: number
  readonly keyValueHeads: number
  readonly headDim: number
}

/**
 * Keys and values of one sequence, owned by JavaScript and fed without a copy: per layer [1, kvHeads, capacity, headDim].
 * The graph returns only new rows; `append` writes them into place.
 */
export class KvCache implements SequenceCache {
  /** Tokens held. */
  length = 0
  private capacity = 0
  private tensors: Float32Array[] = []
  private readonly shape: CacheShape

  constructor(shape: CacheShape, capacity = 0) {
    this.shape = shape
    this.reserve(capacity)
  }

  /** Bytes that the cache occupies. */
  get byteLength(): number {
    return this.tensors.reduce((total, { byteLength }) => total + byteLength, 0)
  }

  /** Forgets all tokens after the first `length`. */
  truncate(length: number): void {
    this.length = Math.min(this.length, length)
  }

  /** The past as graph inputs `past_key.N`, `past_value.N`, and what hides places that are not filled. */
  past(): PastFeeds {
    const { layers, keyValueHeads, headDim } = this.shape
    const places = this.length === 0 ? 0 : this.capacity
    const dims = [1, keyValueHeads, 1, places, headDim]
    const tensor = (index: number) =>
      floatTensor(places === 0 ? new Float32Array(0) : this.tensors[index]!, dims)
    const tensors: Record<string, Tensor> = {}
    for (let layer = 0; layer < layers; layer++) {
      tensors[`past_key.${layer}`] = tensor(2 * layer)
      tensors[`past_value.${layer}`] = tensor(2 * layer + 1)
    }
    const mask = floatTensor(new Float32Array(places).fill(MASKED, this.length), [1, 1, 1, 1, places])
    return { tensors, mask }
  }

  /** Appends `count` tokens from the graph's `present` [2·layers, 1, kvHeads, count, headDim]. */
  append(present: Float32Array, count: number): void {
    const { keyValueHeads, headDim } = this.shape
    this.reserve(this.length + count)
    const run = count * headDim
    this.tensors.forEach((tensor, index) => {
      for (let head = 0; head < keyValueHeads; head++) {
        const from = (index * keyValueHeads + head) * run
        tensor.set(present.subarray(from, from + run), (head * this.capacity + this.length) * headDim)
      }
    })
    this.length += count
  }

  dispose(): void {
    this.tensors = []
    this.capacity = 0
  }

  private reserve(length: number): void {
    if (length <= this.capacity && this.tensors.length > 0) return
    const { layers, keyValueHeads, headDim } = this.shape
    const capacity = Math.ceil(length / GROWTH) * GROWTH
    this.tensors = Array.from({ length: 2 * layers }, (_, index) => {
      const grown = new Float32Array(keyValueHeads * capacity * headDim)
      const old = this.tensors[index]
      for (let head = 0; old && head < keyValueHeads; head++) {
        const start = head * this.capacity * headDim
        grown.set(old.subarray(start, start + this.length * headDim), head * capacity * headDim)
      }
      return grown
    })
    this.capacity = capacity
  }
}
