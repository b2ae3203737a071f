import { loraMethod } from '../adapter/method.ts'
import { loraSize, type PeftConfig } from '../adapter/peft.ts'
import { noSuchTarget, targetedPaths, unmatchedTargets } from '../adapter/targets.ts'
import { EngineError } from '../errors.ts'
import { elementCount } from '../tensor.ts'

/** A tensor of the base by its header alone. */
export interface BaseTensor {
  readonly name: string
  readonly shape: readonly number[]
}

/** Matrices that are no linear modules an adapter could lie on. */
const NOT_LINEAR = /(^|\.)(embed_tokens|word_embeddings|lm_head|output_layer)$/

/**
 * Counts what an adapter trains, by the names and shapes of the base's tensors alone: rank × (in + out) for each targeted
 * matrix (DoRA: out more), and whole tensors.
 *
 * @throws EngineError `invalid` for a target that matches nothing, or a rank above a matrix that it is for.
 */
export function countAdapter(config: PeftConfig, tensors: Iterable<BaseTensor>): number {
  const method = loraMethod(config)
  const all = [...tensors]
  const linears = all
    .filter(({ name, shape }) => shape.length === 2 && name.endsWith('.weight'))
    .map(({ name, shape }) => ({ path: name.slice(0, -'.weight'.length), shape }))
    .filter(({ path }) => !NOT_LINEAR.test(path))
    .map((linear) => (/\.experts\.\d+\./.test(linear.path) ? { ...linear, expert: true as const } : linear))
  const missing = unmatchedTargets(linears, method.targets, method.layers)
  if (missing.length > 0) throw noSuchTarget(missing, linears)
  const targeted = targetedPaths(linears, method.targets, method.layers)
  let count = 0
  for (const { path, shape } of linears) {
    if (!targeted.has(path) || method.saves?.(`${path}.weight`)) continue
    const { rank } = loraSize(config, path)
    checkRank(rank, path, shape)
    count += rank * (shape[0]! + shape[1]!) + (config.use_dora ? shape[0]! : 0)
  }
  for (const { name, shape } of all) if (method.saves?.(name)) count += elementCount(shape)
  return count
}

/** Above the smaller side of a matrix, more rank can express nothing more. */
function checkRank(rank: number, path: string, shape: readonly number[]): void {
  const most = Math.min(shape[0]!, shape[1]!)
  if (rank <= most) return
  throw new EngineError(
    'invalid',
    'lora_rank_too_high',
    `lora_rank ${rank} is above what ${path} [${shape}] can have; at most ${most} there`,
    { param: 'lora_rank' },
  )
}
