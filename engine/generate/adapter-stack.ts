import type { LinearModule } from '../nn/linear-module.ts'
import { stackedInputNames } from '../nn/stacked-lora.ts'
import { floatTensor, type Tensor } from '../tensor.ts'
import type { DecoderAdapter } from './decoder-adapter.ts'

/** The adapters of one run, side by side along the rank (nn/stacked-lora.ts). */
export class AdapterStack {
  /** Sum of the ranks. */
  readonly ranks: number
  /** Whether the feeds hold factors of outputs, for DoRA. */
  readonly scaled: boolean
  /**
   * Each module's stacked A [ranks, in] and Bᵀ [ranks, out], zeros where an adapter leaves a module alone; and for
   * DoRA the outputs' factors [1 + adapters, out], the base's first.
   */
  readonly feeds: Readonly<Record<string, Tensor>>
  readonly #offsets = new Map<DecoderAdapter, number>()

  constructor(
    linears: readonly LinearModule[],
    adapters: readonly DecoderAdapter[],
    options: { scaled: boolean },
  ) {
    let ranks = 0
    for (const adapter of adapters) {
      this.#offsets.set(adapter, ranks)
      ranks += adapter.rank
    }
    this.ranks = ranks
    this.scaled = options.scaled
    const feeds: Record<string, Tensor> = {}
    const nothing = new Float32Array(ranks * Math.max(...linears.map(widest)))
    for (const { path, inFeatures, outFeatures } of linears) {
      const names = stackedInputNames(path)
      feeds[names.a] = floatTensor(this.#stack(path, 'a', inFeatures, nothing), [ranks, inFeatures])
      feeds[names.b] = floatTensor(this.#stack(path, 'b', outFeatures, nothing), [ranks, outFeatures])
      if (this.scaled) feeds[names.scale] = outputScales(adapters, path, outFeatures)
    }
    this.feeds = feeds
  }

  /** Whether it holds exactly these adapters. */
  holds(adapters: ReadonlySet<DecoderAdapter>): boolean {
    return (
      adapters.size === this.#offsets.size && [...adapters].every((adapter) => this.#offsets.has(adapter))
    )
  }

  /** What tells each row's adapter from the others: the mask of ranks, and with DoRA the choice of factors. */
  rowFeeds(rows: readonly (DecoderAdapter | undefined)[]): Record<string, Tensor> {
    const mask = { adapter_mask: this.#mask(rows) }
    return this.scaled ? { ...mask, scale_choice: this.#choice(rows) } : mask
  }

  /** float32 [rows, 1 + adapters]: 1 at a row's own adapter, or at the base. */
  #choice(rows: readonly (DecoderAdapter | undefined)[]): Tensor {
    const adapters = [undefined, ...this.#offsets.keys()]
    const data = new Float32Array(rows.length * adapters.length)
    for (const [row, adapter] of rows.entries()) data[row * adapters.length + adapters.indexOf(adapter)] = 1
    return floatTensor(data, [rows.length, adapters.length])
  }

  /** float32 [rows, ranks]: 1 where a row's own adapter stands. */
  #mask(rows: readonly (DecoderAdapter | undefined)[]): Tensor {
    const data = new Float32Array(rows.length * this.ranks)
    for (const [row, adapter] of rows.entries()) {
      if (adapter === undefined) continue
      const start = row * this.ranks + this.#offsets.get(adapter)!
      data.fill(1, start, start + adapter.rank)
    }
    return floatTensor(data, [rows.length, this.ranks])
  }

  #stack(path: string, matrix: 'a' | 'b', width: number, nothing: Float32Array): Float32Array {
    const adapters = [...this.#offsets.keys()]
    const parts = adapters.map((adapter) => adapter.modules.get(path))
    if (parts.every((part) => part === undefined)) return nothing.subarray(0, this.ranks * width)
    const [only] = parts
    if (parts.length === 1 && only!.rank === this.ranks) return only![matrix]
    const stacked = new Float32Array(this.ranks * width)
    for (const [index, part] of parts.entries()) {
      if (part) stacked.set(part[matrix], this.#offsets.get(adapters[index]!)! * width)
    }
    return stacked
  }
}

function outputScales(adapters: readonly DecoderAdapter[], path: string, outFeatures: number): Tensor {
  const data = new Float32Array((1 + adapters.length) * outFeatures).fill(1)
  for (const [index, adapter] of adapters.entries()) {
    const scale = adapter.modules.get(path)?.outputScale
    if (scale) data.set(scale, (1 + index) * outFeatures)
  }
  return floatTensor(data, [1 + adapters.length, outFeatures])
}

function widest({ inFeatures, outFeatures }: LinearModule): number {
  return Math.max(inFeatures, outFeatures)
}
