import { unpackGptq } from '../engine/packed/gptq-reader.ts'
import { orderedValues } from '../engine/packed/ordered-values.ts'
import { openBase } from '../engine/quant/source.ts'
import type { WeightSource } from '../engine/quant/weight-source.ts'

/** A folder in GPTQ's layout, anyone's, by the checkpoint's tensor names. */
export class GptqFolder implements WeightSource {
  readonly #base: ReturnType<typeof openBase>

  constructor(folder: string) {
    this.#base = openBase(folder)
  }

  readRows(name: string, first: number, count: number): Float32Array {
    return this.#base.weights.readRows(name, first, count)
  }

  readFloat32(name: string): Float32Array {
    const { weights, quantization } = this.#base
    if (weights.has(name) || quantization?.method !== 'gptq') return weights.readFloat32(name)
    const path = name.replace(/\.weight$/, '')
    const ints = (part: string) => new Int32Array(weights.readRaw(`${path}.${part}`).slice().buffer)
    const [words, outFeatures] = weights.entry(`${path}.qweight`).shape as [number, number]
    const { bits, groupSize, zerosMinusOne } = quantization
    return orderedValues(
      unpackGptq({
        bits,
        inFeatures: (words * 32) / bits,
        outFeatures,
        groupSize,
        zerosMinusOne,
        qweight: ints('qweight'),
        qzeros: ints('qzeros'),
        groupIndex: ints('g_idx'),
        scales: weights.readFloat32(`${path}.scales`),
      }),
    )
  }
}
