import { EngineError } from '../errors.ts'
import { type Matrix, toMatrix } from '../linalg/matrix.ts'
import { exactSvd, randomizedSvd } from '../linalg/svd.ts'
import { rowNorms } from './merge.ts'
import type { LoraAdapter, LoraModule } from './peft.ts'
import { loraSize, type PeftConfig } from './peft-config.ts'

export interface PissaOptions {
  rank: number
  scale: number
  /** Subspace iterations of the fast decomposition; -1 decomposes exactly. */
  iterations: number
  seed: number
  dora: boolean
}

/**
 * PiSSA (Meng et al. 2024, arXiv:2404.02948): the largest singular values of W ≈ U·S·Vᵀ become the adapter,
 * B = U·√(S/scale), A = √(S/scale)·Vᵀ, so that scale·B·A is that part of W. W itself is left alone: training needs the
 * base without that part (`addProduct` with the scale negated).
 */
export function principalModule(
  weight: Float32Array,
  [rows, columns]: readonly [number, number],
  options: PissaOptions,
): LoraModule {
  const { rank, scale, iterations, seed } = options
  const matrix = toMatrix(weight, [rows, columns])
  const { u, s, v } = iterations < 0 ? exactSvd(matrix, rank) : randomizedSvd(matrix, rank, iterations, seed)
  const roots = s.map((value) => Math.sqrt(value / scale))
  const weighted = (vectors: Matrix, i: number, r: number) => vectors.data[i * rank + r]! * roots[r]!
  const a = Float32Array.from({ length: rank * columns }, (_, index) =>
    weighted(v, index % columns, Math.floor(index / columns)),
  )
  const b = Float32Array.from({ length: rows * rank }, (_, index) =>
    weighted(u, Math.floor(index / rank), index % rank),
  )
  const module: LoraModule = { a, aShape: [rank, columns], b, bShape: [rows, rank], scale }
  return options.dora ? { ...module, magnitude: Float32Array.from(rowNorms(weight, columns)) } : module
}

/**
 * The trained adapter as a plain one of twice the rank over the original base, as PEFT converts it:
 *   scale·(B·A - B₀·A₀) = scale·[B, -B₀]·[A; A₀].
 *
 * @param initial what training started from
 * @throws EngineError `unsupported` for DoRA, whose magnitudes belong to the base without its principal part.
 */
export function convertPissa(trained: LoraAdapter, initial: LoraAdapter): LoraAdapter {
  if (trained.config.use_dora) {
    const message = 'a DoRA adapter that PiSSA began cannot be converted to another base'
    throw new EngineError('unsupported', 'pissa_convert_dora', message, { param: 'pissa_convert' })
  }
  const config = doubled(trained.config)
  const modules = new Map<string, LoraModule>()
  for (const [path, module] of trained.modules) {
    const { scale } = loraSize(config, path)
    modules.set(path, { ...sideBySide(module, initial.modules.get(path)!), scale })
  }
  return { config, modules, saved: trained.saved }
}

/** Twice the ranks, with the alphas that keep the scales. */
function doubled(config: PeftConfig): PeftConfig {
  const alpha = (value: number) => value * (config.use_rslora ? Math.SQRT2 : 2)
  const each = (pattern: Record<string, number> | null | undefined, change: (value: number) => number) =>
    Object.fromEntries(Object.entries(pattern ?? {}).map(([key, value]) => [key, change(value)]))
  return {
    ...config,
    r: 2 * config.r,
    lora_alpha: alpha(config.lora_alpha),
    rank_pattern: each(config.rank_pattern, (rank) => 2 * rank),
    alpha_pattern: each(config.alpha_pattern, alpha),
  }
}

function sideBySide(now: LoraModule, before: LoraModule): Omit<LoraModule, 'scale'> {
  const [rank, columns] = now.aShape
  const [rows] = now.bShape
  const a = new Float32Array(2 * rank * columns)
  a.set(now.a)
  a.set(before.a, rank * columns)
  const b = new Float32Array(rows * 2 * rank)
  for (let row = 0; row < rows; row++) {
    for (let r = 0; r < rank; r++) {
      b[row * 2 * rank + r] = now.b[row * rank + r]!
      b[row * 2 * rank + rank + r] = -before.b[row * rank + r]!
    }
  }
  return { a, aShape: [2 * rank, columns], b, bShape: [rows, 2 * rank] }
}
