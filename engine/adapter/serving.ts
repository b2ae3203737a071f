import { EngineError } from '../errors.ts'
import { requireFit } from './fit.ts'
import { addProduct, rowNorms } from './merge.ts'
import type { LoraAdapter, LoraModule } from './peft.ts'

/** An adapted linear module as generation needs it: y = outputScale ⊙ (x·Wᵀ + (x·Aᵀ)·Bᵀ) + bias. */
export interface ServingModule {
  readonly rank: number
  /** [rank, in] */
  readonly a: Float32Array
  /** [out, rank], with alpha / rank multiplied in. */
  readonly b: Float32Array
  /** DoRA's m / ‖W + s·B·A‖, [out]; null for plain LoRA, where it is 1. */
  readonly outputScale: Float32Array | null
}

/** A linear module that an adapter may lie on. */
export interface ServingTarget {
  readonly path: string
  readonly inFeatures: number
  readonly outFeatures: number
}

/**
 * The one form in which every variant of LoRA answers over a loaded base.
 *
 * @param linears the base's linear modules
 * @param readWeight a copy of W [out, in] of one of them; read for DoRA alone
 * @param where the base, for messages
 * @throws EngineError `invalid` naming every module that the base doesn't have or that has another shape; `unsupported`
 *   for an adapter that also replaces whole weights of the base.
 */
export function servingForm(
  adapter: LoraAdapter,
  linears: readonly ServingTarget[],
  readWeight: (path: string) => Float32Array,
  where = 'this base',
): Map<string, ServingModule> {
  checkNothingReplaced(adapter)
  const known = new Map(linears.map(({ path, inFeatures, outFeatures }) => [path, [outFeatures, inFeatures]]))
  requireFit(adapter, (path) => known.get(path), where)
  return new Map(
    [...adapter.modules].map(([path, module]) => [path, served(module, () => readWeight(path))] as const),
  )
}

function served(module: LoraModule, readWeight: () => Float32Array): ServingModule {
  const { a, aShape, b, scale, magnitude } = module
  return {
    rank: aShape[0],
    a,
    b: b.map((value) => value * scale),
    outputScale: magnitude ? magnitudeOverNorm(module, readWeight()) : null,
  }
}

function magnitudeOverNorm(module: LoraModule, weight: Float32Array): Float32Array {
  addProduct(weight, module)
  const norms = rowNorms(weight, module.aShape[1])
  return module.magnitude!.map((value, row) => value / norms[row]!)
}

function checkNothingReplaced({ saved }: LoraAdapter): void {
  if (saved.size === 0) return
  const names = [...saved.keys()]
  throw new EngineError(
    'unsupported',
    'adapter_replaces_weights',
    `the adapter also replaces whole weights of its base (modules_to_save: ${names.slice(0, 5).join(', ')}), which a ` +
      'loaded base cannot take. Merge it first and chat with the merge',
    { param: 'model' },
  )
}
