import { EngineError } from '../errors.ts'
import { GgufFile } from '../gguf/file.ts'
import { partHalves } from '../gguf/import.ts'
import type { WeightSource } from '../quant/weight-source.ts'
import { elementCount } from '../tensor.ts'
import type { GgufPlan } from './gguf.ts'

/** In which tensor of the file a tensor of the checkpoint lies, and how many elements after its start. */
interface Place {
  readonly planned: GgufPlan['tensors'][number]
  readonly start: number
  readonly shape: readonly number[]
}

/** A written GGUF file read back by the checkpoint's tensor names, with what the file changes undone. */
export class GgufSourceFile implements WeightSource {
  readonly #file: GgufFile
  readonly #places: ReadonlyMap<string, Place>

  constructor(path: string, plan: GgufPlan) {
    this.#file = GgufFile.open(path)
    this.#places = new Map(
      plan.tensors.flatMap((planned) => {
        const { from } = planned.source
        if (from instanceof Float32Array) return []
        return from.map(({ name, shape }, index) => [
          name,
          { planned, shape, start: index * elementCount(shape) },
        ])
      }),
    )
  }

  readFloat32(name: string): Float32Array {
    const { shape, interleavedRows } = this.#place(name)
    const values = this.#read(name, 0, shape[0]!)
    return interleavedRows === undefined ? values : partHalves(values, interleavedRows, shape[1] ?? 1)
  }

  readRows(name: string, first: number, count: number): Float32Array {
    const { shape, interleavedRows } = this.#place(name)
    if (interleavedRows === undefined) return this.#read(name, first, count)
    const columns = elementCount(shape.slice(1))
    return this.readFloat32(name).subarray(first * columns, (first + count) * columns)
  }

  /** Rows in the file's order. */
  #read(name: string, first: number, count: number): Float32Array {
    const { tensor, start, shape, offset } = this.#place(name)
    const columns = elementCount(shape.slice(1))
    const values = this.#file.readValues(tensor, start + first * columns, count * columns)
    if (offset !== 0) for (let i = 0; i < values.length; i++) values[i]! -= offset
    return values
  }

  /** Where a tensor of the checkpoint lies, its shape, and what the file changes of it. */
  #place(name: string) {
    const place = this.#places.get(name)
    const tensor = place && this.#file.tensors.get(place.planned.name)
    if (!tensor) throw new EngineError('internal', 'tensor_missing', `${this.#file.path} has no ${name}`)
    const { offset = 0, interleavedRows } = place.planned.source
    return { tensor, start: place.start, shape: place.shape, offset, interleavedRows }
  }

  close(): void {
    this.#file.close()
  }
}
