import { EngineError } from '../errors.ts'
import { GgufFile } from '../gguf/file.ts'
import { partHalves } from '../gguf/import.ts'
import type { WeightSource } from '../quant/weight-source.ts'
import { elementCount } from '../tensor.ts'
import type { GgufPlan } from './gguf.ts'

/** A written GGUF file read back by the checkpoint's tensor names, with what the file changes undone. */
export class GgufSourceFile implements WeightSource {
  readonly #file: GgufFile
  /** Where each tensor of the checkpoint lies: in which tensor of the file, and how many elements after its start. */
  readonly #places: ReadonlyMap<string, { planned: GgufPlan['tensors'][number]; start: number }>

  constructor(path: string, plan: GgufPlan) {
    this.#file = GgufFile.open(path)
    this.#places = new Map(
      plan.tensors.flatMap((planned) => {
        const { from } = planned.source
        if (from instanceof Float32Array) return []
        return from.map(({ name, shape }, index) => [name, { planned, start: index * elementCount(shape) }])
      }),
    )
  }

  readFloat32(name: string): Float32Array {
    const place = this.#places.get(name)
    const tensor = place && this.#file.tensors.get(place.planned.name)
    if (!tensor) throw new EngineError('internal', 'tensor_missing', `${this.#file.path} has no ${name}`)
    const { from, offset = 0, interleavedRows, shape } = place.planned.source
    const values = this.#file.readValues(tensor, place.start, elementCount(tensor.shape) / from.length)
    if (offset !== 0) for (let i = 0; i < values.length; i++) values[i]! -= offset
    return interleavedRows === undefined ? values : partHalves(values, interleavedRows, shape[1] ?? 1)
  }

  close(): void {
    this.#file.close()
  }
}
