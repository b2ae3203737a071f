import type { KvRow } from './kv-group.ts'
import type { KvPool } from './kv-pool.ts'

/** Tokens of one block: prefixes are shared in whole blocks. */
export const BLOCK_TOKENS = 32

/** What is known of the beginnings of sequences. */
export interface Prefixes {
  /** Memory that it takes beside the pool's. */
  readonly byteLength: number
  /** Copies what is known of the beginning of `tokens` into the empty row; returns how many tokens that were. */
  restore(row: KvRow, adapter: string, tokens: Int32Array): number
  /** Keeps what a row that holds `tokens` begins with. */
  store(row: KvRow, adapter: string, tokens: Int32Array): void
}

interface Block {
  readonly id: number
  /** [2·layers, kvHeads, BLOCK_TOKENS, headDim] */
  readonly data: Float32Array
}

/**
 * Keys and values of prompts and answers that were computed before, in blocks. A block's key is its adapter, the block
 * before it and its own tokens, so equal keys mean equal beginnings, whole and exact. The longest unused go first.
 */
export class PrefixCache implements Prefixes {
  readonly #pool: KvPool
  readonly #budget: number
  /** Least recently used first. A block is always used later than the ones that follow it. */
  readonly #blocks = new Map<string, Block>()
  #nextId = 1

  constructor(pool: KvPool, budgetBytes: number) {
    this.#pool = pool
    this.#budget = budgetBytes
  }

  get byteLength(): number {
    return this.#blocks.size * this.#pool.blockSize(BLOCK_TOKENS) * 4
  }

  restore(row: KvRow, adapter: string, tokens: Int32Array): number {
    const found: string[] = []
    let parent = adapter
    // The last token is always computed: the logits after it are wanted.
    for (let start = 0; start + BLOCK_TOKENS < tokens.length; start += BLOCK_TOKENS) {
      const key = blockKey(parent, tokens, start)
      const block = this.#blocks.get(key)
      if (!block) break
      found.push(key)
      row.group.append(row, block.data, 1, 0, BLOCK_TOKENS)
      parent = String(block.id)
    }
    this.#touch(found)
    return row.length
  }

  /** Keeps its whole blocks. */
  store(row: KvRow, adapter: string, tokens: Int32Array): void {
    const size = this.#pool.blockSize(BLOCK_TOKENS)
    const keys: string[] = []
    let parent = adapter
    for (let start = 0; start + BLOCK_TOKENS <= row.length; start += BLOCK_TOKENS) {
      const key = blockKey(parent, tokens, start)
      let block = this.#blocks.get(key)
      if (!block) {
        if ((keys.length + 1) * size * 4 > this.#budget) break
        block = { id: this.#nextId++, data: new Float32Array(size) }
        row.group.read(row, start, BLOCK_TOKENS, block.data)
        this.#blocks.set(key, block)
      }
      keys.push(key)
      parent = String(block.id)
    }
    this.#touch(keys)
    for (const oldest of this.#blocks.keys()) {
      if (this.byteLength <= this.#budget) break
      this.#blocks.delete(oldest)
    }
  }

  /** Marks a chain as just used, its end first, so that no block goes before those that build on it. */
  #touch(chain: readonly string[]): void {
    for (const key of chain.toReversed()) {
      const block = this.#blocks.get(key)!
      this.#blocks.delete(key)
      this.#blocks.set(key, block)
    }
  }
}

function blockKey(parent: string, tokens: Int32Array, start: number): string {
  return `${parent}:${tokens.subarray(start, start + BLOCK_TOKENS).join()}`
}
