import type { OpenModel } from '../models/index.ts'
import type { GgufBlockType } from './gguf-blocks.ts'
import type { GptqOptions } from './gptq.ts'
import type { LayerGraphs } from './layer-graph.ts'
import type { MatrixProduct } from './matrix-product.ts'
import type { QuantizedLayers } from './quantized-layers.ts'

export type QuantMethod = 'rtn' | 'gptq' | 'awq'

export interface QuantizeOptions extends GptqOptions {
  readonly method: QuantMethod
  /** Token windows of equal length; empty for methods without data. */
  readonly calibration: readonly Int32Array[]
  /** How a GGUF file holds each module, for method gptq; without it modules become integer blocks. */
  readonly blockTypes?: ReadonlyMap<string, GgufBlockType>
  readonly threads?: number
  readonly onProgress?: (layer: number, layers: number, part: number) => void
  readonly signal?: AbortSignal
}

/** What goes along from layer to layer while a model is quantized. */
export interface QuantizeWalk {
  readonly model: OpenModel
  readonly layers: QuantizedLayers
  readonly options: QuantizeOptions
  readonly graphs: LayerGraphs
  readonly product: MatrixProduct
}
