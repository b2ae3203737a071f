import type { WeightFolder } from '../weights/safetensors.ts'
import { orderedValues } from './ordered-values.ts'
import type { QuantizedLayer, QuantizedLayers } from './quantized-layers.ts'
import type { WeightSource } from './weight-source.ts'

/** A model whose layers are quantized, by the checkpoint's tensor names; what is not quantized comes from there. */
export class QuantizedSource implements WeightSource {
  readonly #weights: WeightFolder
  readonly #layers: QuantizedLayers
  readonly #prefix: string
  #last: { layer: number; content: QuantizedLayer } | undefined

  /** @param prefix names of layer N begin with `prefix.N.` */
  constructor(weights: WeightFolder, layers: QuantizedLayers, prefix: string) {
    this.#weights = weights
    this.#layers = layers
    this.#prefix = `${prefix}.`
  }

  readFloat32(name: string): Float32Array {
    const layer = name.startsWith(this.#prefix)
      ? Number.parseInt(name.slice(this.#prefix.length), 10)
      : Number.NaN
    if (Number.isNaN(layer)) return this.#weights.readFloat32(name)
    const { matrices, changed } = this.layer(layer)
    const matrix = matrices.get(name.replace(/\.weight$/, ''))
    if (matrix && name.endsWith('.weight')) return orderedValues(matrix)
    return changed.get(name)?.values ?? this.#weights.readFloat32(name)
  }

  readRows(name: string, first: number, count: number): Float32Array {
    if (!name.startsWith(this.#prefix)) return this.#weights.readRows(name, first, count)
    const columns = this.#weights.entry(name).shape[1] ?? 1
    return this.readFloat32(name).subarray(first * columns, (first + count) * columns)
  }

  /** A layer; the last one is kept, since its tensors are asked for one after another. */
  layer(layer: number): QuantizedLayer {
    if (this.#last?.layer !== layer) this.#last = { layer, content: this.#layers.read(layer) }
    return this.#last.content
  }
}
