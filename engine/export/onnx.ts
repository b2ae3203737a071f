import { EngineError } from '../errors.ts'
import type { OpenModel } from '../models/index.ts'
import type { QuantizedLayers } from '../quant/quantized-layers.ts'
import type { WeightDType } from '../weights/dtypes.ts'

export interface OnnxWriteOptions {
  model: OpenModel
  layers: QuantizedLayers | undefined
  dtype: WeightDType
  onProgress?: (fraction: number, message: string) => void
  signal?: AbortSignal
}

export async function writeOnnx(_folder: string, _options: OnnxWriteOptions): Promise<number> {
  throw new EngineError('unsupported', 'format_not_supported', 'The format onnx is not written yet.', {
    param: 'format',
  })
}
