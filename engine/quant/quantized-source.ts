import { dequantize } from '../gguf/dequantize.ts'
import type { OrderedBlocks } from '../packed/gptq-reader.ts'
import { orderedValues } from '../packed/ordered-values.ts'
import { elementCount } from '../tensor.ts'
import type { WeightFolder } from '../weights/safetensors.ts'
import type { PackedBlocks } from './gguf-codes-k.ts'
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
    const matrix = this.matrix(name)
    if (matrix) return orderedValues(matrix)
    const packed = this.packed(name)
    if (packed) return dequantize(packed.type, packed.bytes, elementCount(this.#weights.entry(name).shape))
    return this.changed(name) ?? this.#weights.readFloat32(name)
  }

  /** The blocks that stand for a tensor; undefined where it is none that was quantized. */
  matrix(name: string): OrderedBlocks | undefined {
    if (!name.endsWith('.weight')) return undefined
    return this.#layerOf(name)?.matrices.get(name.replace(/\.weight$/, ''))
  }

  /** The blocks of a GGUF file that stand for a tensor; undefined where it has none. */
  packed(name: string): PackedBlocks | undefined {
    return this.#layerOf(name)?.packed.get(name.replace(/\.weight$/, ''))
  }

  /** A tensor's values where a method changed them without quantizing it. */
  changed(name: string): Float32Array | undefined {
    return this.#layerOf(name)?.changed.get(name)?.values
  }

  #layerOf(name: string): QuantizedLayer | undefined {
    if (!name.startsWith(this.#prefix)) return undefined
    const layer = Number.parseInt(name.slice(this.#prefix.length), 10)
    return Number.isNaN(layer) ? undefined : this.layer(layer)
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
