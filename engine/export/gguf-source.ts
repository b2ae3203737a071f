import { EngineError } from '../errors.ts'
import { GgufFile } from '../gguf/file.ts'
import { partHalves } from '../gguf/import.ts'
import type { WeightSource } from '../quant/weight-source.ts'
import { elementCount } from '../tensor.ts'
import type { GgufPlan } from './gguf.ts'

/** A written GGUF file read back by the checkpoint's tensor names, with what the file changes undone. */
export class GgufSourceFile implements WeightSource {
  readonly #file: GgufFile
  readonly #plan: ReadonlyMap<string, GgufPlan['tensors'][number]>

  constructor(path: string, plan: GgufPlan) {
    this.#file = GgufFile.open(path)
    this.#plan = new Map(
      plan.tensors.flatMap((tensor) =>
        typeof tensor.source.from === 'string' ? [[tensor.source.from, tensor]] : [],
      ),
    )
  }

  readFloat32(name: string): Float32Array {
    const planned = this.#plan.get(name)
    const tensor = planned && this.#file.tensors.get(planned.name)
    if (!tensor) throw new EngineError('internal', 'tensor_missing', `${this.#file.path} has no ${name}`)
    const values = this.#file.readValues(tensor, 0, elementCount(tensor.shape))
    const { offset = 0, interleavedRows, shape } = planned.source
    if (offset !== 0) for (let i = 0; i < values.length; i++) values[i]! -= offset
    return interleavedRows === undefined ? values : partHalves(values, interleavedRows, shape[1] ?? 1)
  }

  close(): void {
    this.#file.close()
  }
}
