import { GraphBuilder } from '../graph/builder.ts'
import { shapeSize, type Value } from '../graph/values.ts'
import { type Device, keepsNatively } from '../onnx/device.ts'
import { type DeviceTensor, Session } from '../onnx/session.ts'
import { intTensor, type Tensor } from '../tensor.ts'

/** What keys and values are laid out by. */
export interface CacheShape {
  readonly layers: number
  readonly keyValueHeads: number
  readonly headDim: number
}

/**
 * Makes and copies caches in a device's memory; one for all caches of a model. What caches ask for waits here until the
 * next run, and then happens in the order in which it was asked for, whichever caches it concerns.
 */
export class CacheKernels {
  readonly shape: CacheShape
  /** Whether a run writes into the caches that it is fed with, instead of returning them anew. */
  readonly inPlace: boolean
  readonly #waiting: (() => Promise<void>)[] = []
  readonly #zeros: { session: Session; output: string }
  readonly #copy: { session: Session; output: string }

  private constructor(
    device: Device,
    shape: CacheShape,
    zeros: { session: Session; output: string },
    copy: { session: Session; output: string },
  ) {
    this.shape = shape
    this.inPlace = keepsNatively(device)
    this.#zeros = zeros
    this.#copy = copy
  }

  static async create(device: Device, shape: CacheShape): Promise<CacheKernels> {
    return new CacheKernels(device, shape, await compileZeros(device), await compileCopy(device, shape))
  }

  enqueue(work: () => Promise<void>): void {
    this.#waiting.push(work)
  }

  /** Does what waits. */
  async settle(): Promise<void> {
    for (let work = this.#waiting.shift(); work; work = this.#waiting.shift()) await work()
  }

  /** Zeros [slots, kvHeads, places, headDim]. */
  async zeros(slots: number, places: number): Promise<DeviceTensor> {
    const { keyValueHeads, headDim } = this.shape
    const size = ints([slots, keyValueHeads, places, headDim], [4])
    return (await this.#zeros.session.runKeeping({ size })).kept[this.#zeros.output]!
  }

  /** `target` with the first `places` places of slots `from` of `source` in its slots `to`; all of them by default. */
  async copy(
    target: DeviceTensor,
    source: DeviceTensor,
    moves: readonly { from: number; to: number }[],
    places = source.dims[2]!,
  ): Promise<DeviceTensor> {
    const heads = this.shape.keyValueHeads
    const rows = moves.flatMap(({ to }) => cacheRows(to, heads, 0, places))
    const { kept } = await this.#copy.session.runKeeping({
      target,
      source,
      from: ints(
        moves.map(({ from }) => from),
        [moves.length],
      ),
      kept: ints(
        Array.from({ length: places }, (_, place) => place),
        [places],
      ),
      rows: ints(rows, [rows.length / 3, 3]),
    })
    return kept[this.#copy.output]!
  }

  async release(): Promise<void> {
    await this.#zeros.session.release()
    await this.#copy.session.release()
  }
}

/** Slot, head and place of `count` rows from place `first` on, for each head in turn; flat, three numbers a row. */
export function cacheRows(slot: number, heads: number, first: number, count: number): number[] {
  const rows: number[] = []
  for (let head = 0; head < heads; head++) {
    for (let place = first; place < first + count; place++) rows.push(slot, head, place)
  }
  return rows
}

/**
 * Keys and values of several sequences in a device's memory, a slot each: for every layer keys and values
 * [slots, kvHeads, places, headDim]. Where kernels do not work in place, a run of the decoder returns them anew, so that they
 * are there twice while it runs.
 * Resizes and copies happen when the kernels settle, before the next run.
 */
export class DeviceCache {
  slots = 0
  places = 0
  /** What went wrong with its memory, after which it holds nothing. */
  failure: unknown
  #tensors: DeviceTensor[] = []
  readonly #kernels: CacheKernels

  constructor(kernels: CacheKernels) {
    this.#kernels = kernels
  }

  get keyValueHeads(): number {
    return this.#kernels.shape.keyValueHeads
  }

  /** The graph's inputs `cache.N`, once all that was asked for is done. */
  async feeds(): Promise<Record<string, DeviceTensor>> {
    await this.#kernels.settle()
    if (this.failure !== undefined) throw this.failure
    return Object.fromEntries(this.#tensors.map((tensor, index) => [`cache.${index}`, tensor]))
  }

  /** Takes what a run has made of it. */
  adopt(tensors: readonly DeviceTensor[]): void {
    for (const tensor of this.#tensors) tensor.dispose()
    this.#tensors = [...tensors]
  }

  /** Makes room for `slots` sequences of `places` tokens each, at least as many as there are; what it holds stays. */
  resize(slots: number, places: number): void {
    if (slots === this.slots && places === this.places) return
    const all = Array.from({ length: this.slots }, (_, slot) => ({ from: slot, to: slot }))
    this.slots = slots
    this.places = places
    this.#replaceEach(async (old) => {
      const zeros = await this.#kernels.zeros(slots, places)
      if (!old) return zeros
      try {
        return await this.#kernels.copy(zeros, old, all)
      } finally {
        zeros.dispose()
      }
    })
  }

  /** Copies the first `places` places of a slot of another cache (or this one) into a slot of this one. */
  copySlot(to: number, source: DeviceCache, from: number, places: number): void {
    this.#replaceEach((old, index) => {
      const read = source === this ? old! : source.#tensors[index]!
      return this.#kernels.copy(old!, read, [{ from, to }], places)
    })
  }

  /** Frees its memory, after what was asked for before. */
  dispose(): void {
    this.slots = 0
    this.places = 0
    this.#kernels.enqueue(async () => this.adopt([]))
  }

  /** Layer by layer, so that only one layer's memory is there twice. */
  #replaceEach(make: (old: DeviceTensor | undefined, index: number) => Promise<DeviceTensor>): void {
    this.#kernels.enqueue(async () => {
      if (this.failure !== undefined) return
      try {
        for (let index = 0; index < 2 * this.#kernels.shape.layers; index++) {
          const old = this.#tensors[index]
          this.#tensors[index] = await make(old, index)
          old?.dispose()
        }
      } catch (error) {
        this.failure = error
        this.adopt([])
      }
    })
  }
}

async function compileZeros(device: Device): Promise<{ session: Session; output: string }> {
  const g = new GraphBuilder()
  const size = g.input('size', 'int64', [4])
  const zeros = g.emit('Expand', [g.scalar(0), size], { shape: ['slots', 'heads', 'places', 'width'] })
  return keeping(device, g, zeros)
}

async function compileCopy(
  device: Device,
  { keyValueHeads, headDim }: CacheShape,
): Promise<{ session: Session; output: string }> {
  const g = new GraphBuilder()
  const target = g.input('target', 'float32', ['slots', keyValueHeads, 'places', headDim])
  const source = g.input('source', 'float32', ['old_slots', keyValueHeads, 'old_places', headDim])
  const from = g.input('from', 'int64', ['moved'])
  const kept = g.input('kept', 'int64', ['kept'])
  const count = shapeSize(['moved', keyValueHeads, 'kept'])
  const rows = g.input('rows', 'int64', [count, 3])
  const moved = g.Reshape(g.Gather(g.Gather(source, from), kept, 2), [count, headDim])
  const copied = g.ScatterND(target, rows, moved, 'none')
  return keeping(device, g, copied)
}

async function keeping(device: Device, g: GraphBuilder, output: Value) {
  const session = await Session.create(g.finish([output]), { device, keepOnDevice: [output.name] })
  return { output: output.name, session }
}

function ints(values: readonly number[], dims: readonly number[]): Tensor {
  return intTensor(BigInt64Array.from(values, BigInt), dims)
}
