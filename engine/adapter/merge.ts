import { EngineError } from '../errors.ts'
import { readModelConfig } from '../weights/model-files.ts'
import { type Adjust, type ByteProgress, writeModel } from '../weights/model-writer.ts'
import { WeightFolder } from '../weights/safetensors.ts'
import { type LoraAdapter, type LoraModule, readAdapter } from './peft.ts'

export interface MergeOptions {
  baseFolder: string
  /** A PEFT folder; without one the base is copied. */
  adapterFolder?: string
  /** Must not exist, or be empty. */
  outputFolder: string
  /** Most bytes of tensors in one file; 5 GB by default. */
  shardBytes?: number
  onProgress?: (progress: ByteProgress) => void
  signal?: AbortSignal
}

/**
 * Adds an adapter to its base, W' = W + scale · B·A, computed in float32 or better and written in the base's dtype. One
 * tensor at a time is in memory, and the output folder appears whole or not at all.
 *
 * @returns the bytes of the merged weights.
 * @throws EngineError `invalid` listing every module that the base doesn't have or that has another shape, or naming a
 *   tensor whose result is not finite; `unsupported` for an adapter on tied embeddings; and what writeModel throws.
 */
export async function mergeAdapter(options: MergeOptions): Promise<number> {
  const { baseFolder, adapterFolder, ...rest } = options
  const adapter = adapterFolder === undefined ? undefined : readAdapter(adapterFolder)
  if (adapter) checkFits(baseFolder, adapter)
  const adjust = new Map<string, Adjust>()
  for (const [modulePath, module] of adapter?.modules ?? []) {
    adjust.set(`${modulePath}.weight`, (values) => addProduct(values, module, adapter!.scale))
  }
  return writeModel({ modelFolder: baseFolder, adjust, ...rest })
}

/** weight[out, in] += scale · b[out, r] · a[r, in]; a row's sum is kept in float64 and rounded once. */
export function addProduct(weight: Float32Array, { a, aShape, b }: LoraModule, scale: number): void {
  const [rank, columns] = aShape
  const delta = new Float64Array(columns)
  for (let row = 0; row * columns < weight.length; row++) {
    delta.fill(0)
    for (let r = 0; r < rank; r++) {
      const factor = scale * b[row * rank + r]!
      const start = r * columns
      for (let column = 0; column < columns; column++) delta[column]! += factor * a[start + column]!
    }
    const start = row * columns
    for (let column = 0; column < columns; column++) weight[start + column]! += delta[column]!
  }
}

function checkFits(baseFolder: string, adapter: LoraAdapter): void {
  const base = WeightFolder.open(baseFolder)
  try {
    checkNotTied(baseFolder, base, adapter)
    const problems: string[] = []
    for (const [modulePath, { aShape, bShape }] of adapter.modules) {
      const shape = base.entries.get(`${modulePath}.weight`)?.shape
      const expected = [bShape[0], aShape[1]]
      if (!shape) problems.push(`${modulePath} is not in the base`)
      else if (shape.length !== 2 || shape[0] !== expected[0] || shape[1] !== expected[1]) {
        problems.push(`${modulePath} is [${shape}] in the base, but the adapter is for [${expected}]`)
      }
    }
    if (problems.length === 0) return
    const more = problems.length > 10 ? `; and ${problems.length - 10} more` : ''
    throw new EngineError(
      'invalid',
      'adapter_mismatch',
      `the adapter does not fit the base ${baseFolder}: ${problems.slice(0, 10).join('; ')}${more}`,
      { param: 'adapter' },
    )
  } finally {
    base.close()
  }
}

/** Tied, one matrix is both the embedding and the head: a merge into either would change the other as well. */
function checkNotTied(baseFolder: string, base: WeightFolder, adapter: LoraAdapter): void {
  const tied = readModelConfig(baseFolder).tie_word_embeddings === true || !base.has('lm_head.weight')
  const target = [...adapter.modules.keys()].find((path) => /(^|\.)(lm_head|embed_tokens)$/.test(path))
  if (!tied || target === undefined) return
  throw new EngineError(
    'unsupported',
    'adapter_on_tied_embeddings',
    `the adapter changes ${target}, but in ${baseFolder} the output head and the token embedding are one tied matrix: ` +
      'merging it would change both. Train without lm_head and embed_tokens among the targets',
    { param: 'adapter' },
  )
}
