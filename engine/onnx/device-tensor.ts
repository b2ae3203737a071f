import type { FeedDType, Tensor } from '../tensor.ts'

/** A tensor in a device's memory: an output that a session kept there, for any session on that device to read. */
export class DeviceTensor {
  readonly dtype: FeedDType
  readonly dims: readonly number[]
  /** @internal The runtime's own value: the binding's object, or a pointer for the C interface. */
  readonly value: object | bigint
  readonly #free: () => void

  constructor(dtype: FeedDType, dims: readonly number[], value: object | bigint, free: () => void) {
    this.dtype = dtype
    this.dims = dims
    this.value = value
    this.#free = free
  }

  /** Frees its memory now; it must not be read any more. */
  dispose(): void {
    this.#free()
  }
}

/** What a graph is fed with, by the inputs' names. */
export type Feeds = Readonly<Record<string, Tensor | DeviceTensor>>

/** What a run returns: outputs in the host's memory, and those that were kept on the device. */
export interface RunResults {
  readonly results: Record<string, Tensor>
  readonly kept: Record<string, DeviceTensor>
}
