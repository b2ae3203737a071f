import { causalMask } from '../nn/masks.ts'
import type { DeviceTensor } from '../onnx/session.ts'
import { intTensor, type Tensor } from '../tensor.ts'
import { cacheRows, type DeviceCache } from './device-cache.ts'

/** The past of a batch as graph inputs; `mask` [batch, 1, 1, 1, places] hides the places that are not filled. */
export interface FedPast {
  readonly tensors: Readonly<Record<string, Tensor>>
  readonly mask: Tensor
}

/** The past of a batch on the device: its sequences' slots. The run replaces the cache's tensors. */
export interface ResidentPast {
  readonly cache: DeviceCache
  readonly slots: readonly number[]
}

export type PastFeeds = FedPast | ResidentPast

/** Keys and values of one sequence, wherever they are. */
export interface SequenceCache {
  /** Tokens held. */
  readonly length: number
  /** Forgets all tokens after the first `length`. */
  truncate(length: number): void
  /** What a run that appends `count` tokens is fed with. */
  past(count: number): PastFeeds
  /** Appends what the run returned. */
  append(present: Float32Array, count: number): void
  /** Frees its memory. */
  dispose(): void
}

/** New tokens and the past that they follow. */
export interface PastStep {
  readonly batch: number
  readonly seq: number
  /** Positions of the tokens, [batch·seq]. */
  readonly positions: BigInt64Array
  readonly past: PastFeeds
}

/** What a run of `seq` new tokens for each of `batch` sequences is fed with of its past. */
export async function pastFeeds({
  past,
  batch,
  seq,
  positions,
}: PastStep): Promise<Record<string, Tensor | DeviceTensor>> {
  if (!('cache' in past)) {
    return { ...past.tensors, past_mask: past.mask, attention_mask: causalMask(seq) }
  }
  const { cache, slots } = past
  const rows = slots.flatMap((slot, index) =>
    cacheRows(slot, cache.keyValueHeads, Number(positions[index * seq]), seq),
  )
  const places = BigInt64Array.from({ length: cache.places }, (_, place) => BigInt(place))
  return {
    ...(await cache.feeds()),
    slots: intTensor(BigInt64Array.from(slots, BigInt), [batch]),
    cache_rows: intTensor(BigInt64Array.from(rows, BigInt), [rows.length / 3, 3]),
    places: intTensor(places, [cache.places]),
  }
}
