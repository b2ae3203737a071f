import { DeviceKvGroup } from './device-kv-group.ts'
import type { KvGroup, KvRow } from './kv-group.ts'
import type { KvPool } from './kv-pool.ts'
import { BLOCK_TOKENS, type Prefixes } from './prefix-cache.ts'

/**
 * Beginnings of earlier sequences where keys and values stay in a device's memory and are not read back: a slot keeps what it
 * held until another sequence needs it. Who begins alike takes over the slot itself, where it is free and wide enough, or
 * has a copy made on the device. It takes no memory beside the pool's.
 */
export class SlotPrefixes implements Prefixes {
  readonly byteLength = 0
  readonly #pool: KvPool

  constructor(pool: KvPool) {
    this.#pool = pool
  }

  restore(row: KvRow, adapter: string, tokens: Int32Array): number {
    // The last token is always computed: the logits after it are wanted.
    const wanted = tokens.subarray(0, tokens.length - 1)
    let best: { group: DeviceKvGroup; slot: number; common: number } | undefined
    for (const group of this.#deviceGroups()) {
      for (const [slot, held] of group.held) {
        const common = held.adapter === adapter ? commonLength(held.tokens, wanted) : 0
        // among equals the slot that needs no copy
        const isBetter = common > (best?.common ?? BLOCK_TOKENS - 1)
        if (isBetter || (common === best?.common && group === row.group)) best = { group, slot, common }
      }
    }
    if (!best) return row.length
    const { group, slot, common } = best
    row.length = common
    if (group === row.group && group.isFree(slot, row)) group.takeSlot(row, slot)
    else row.group.copyInto(row, group, slot)
    return common
  }

  store(row: KvRow, adapter: string, tokens: Int32Array): void {
    if (row.length < BLOCK_TOKENS) return
    const group = row.group as DeviceKvGroup
    group.hold(row.index, { adapter, tokens: tokens.slice(0, row.length) })
  }

  #deviceGroups(): DeviceKvGroup[] {
    const isThere = (group: KvGroup): group is DeviceKvGroup =>
      group instanceof DeviceKvGroup && group.allocated > 0
    return this.#pool.groups.filter(isThere)
  }
}

function commonLength(left: Int32Array, right: Int32Array): number {
  const most = Math.min(left.length, right.length)
  let at = 0
  while (at < most && left[at] === right[at]) at++
  return at
}
