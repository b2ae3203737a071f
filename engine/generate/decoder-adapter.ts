import { readAdapter } from '../adapter/peft.ts'
import { type ServingModule, servingForm } from '../adapter/serving.ts'
import type { OpenModel } from '../models/index.ts'
import type { LinearModule } from '../nn/linear-module.ts'
import { readWeight as readStoredWeight } from '../packed/layout.ts'

/** One module's part of an adapter: A [rank, in], Bᵀ [rank, out] with alpha / rank in it, and DoRA's factors [out]. */
export interface AdaptedModule {
  readonly rank: number
  readonly a: Float32Array
  readonly b: Float32Array
  readonly outputScale: Float32Array | null
}

/** An adapter in memory, checked against its base. */
export interface DecoderAdapter {
  /** Changes whenever the folder's files do. */
  readonly key: string
  /** The largest rank of its modules. */
  readonly rank: number
  readonly modules: ReadonlyMap<string, AdaptedModule>
  /** Whether it is DoRA: its outputs have factors. */
  readonly scaled: boolean
}

/** Reads a PEFT folder for a base. Throws what servingForm throws for one that does not fit or cannot be fed. */
export function loadDecoderAdapter(
  folder: string,
  model: OpenModel,
  linears: readonly LinearModule[],
  key: string = folder,
): DecoderAdapter {
  const readWeight = (path: string) => readStoredWeight(model.weights, `${path}.weight`)
  const served = servingForm(readAdapter(folder), linears, readWeight, model.folder)
  const modules = new Map([...served].map(([path, module]) => [path, adapted(module)] as const))
  const parts = [...modules.values()]
  return {
    key,
    rank: Math.max(0, ...parts.map((module) => module.rank)),
    modules,
    scaled: parts.some((module) => module.outputScale !== null),
  }
}

/** Turns B [out, rank] into Bᵀ, which stacks by rows. */
function adapted({ rank, a, b, outputScale }: ServingModule): AdaptedModule {
  const out = rank === 0 ? 0 : b.length / rank
  const transposed = new Float32Array(b.length)
  for (let row = 0; row < out; row++) {
    for (let column = 0; column < rank; column++) transposed[column * out + row] = b[row * rank + column]!
  }
  return { rank, a, b: transposed, outputScale }
}
