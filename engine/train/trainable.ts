import { loraSize, type PeftConfig } from '../adapter/peft.ts'
import { matchesPattern, noSuchTarget, targetedPaths, unmatchedTargets } from '../adapter/targets.ts'
import { EngineError } from '../errors.ts'
import type { LinearModule } from '../nn/linear-module.ts'
import { elementCount } from '../tensor.ts'
import { isBelow, loraMethod } from './lora-method.ts'
import type { LoraMethod } from './training-method.ts'

/** A tensor of the base by its header alone. */
export interface BaseTensor {
  readonly name: string
  readonly shape: readonly number[]
}

/**
 * Counts what an adapter trains, without loading a weight: rank × (in + out) for each targeted module of the model (DoRA:
 * out more), and whole tensors of the base.
 *
 * @throws EngineError `invalid` for a target that matches nothing, or a rank above a matrix that it is for; `unsupported`
 *   for what adapters on experts cannot have.
 */
export function countAdapter(
  config: PeftConfig,
  linears: readonly LinearModule[],
  tensors: Iterable<BaseTensor>,
): number {
  const method = loraMethod(config)
  checkLayers(config, method, linears)
  const missing = unmatchedTargets(linears, method.targets, method.layers)
  if (missing.length > 0) throw noSuchTarget(missing, linears)
  const targeted = targetedPaths(linears, method.targets, method.layers)
  if (linears.some(({ path, expert }) => expert && targeted.has(path))) checkExpertAdapter(config)
  let count = 0
  for (const { path, inFeatures, outFeatures } of linears) {
    if (!targeted.has(path) || method.saves?.(`${path}.weight`)) continue
    const { rank } = loraSize(config, path)
    checkRank(rank, path, [outFeatures, inFeatures])
    count += rank * (inFeatures + outFeatures) + (config.use_dora ? outFeatures : 0)
  }
  checkPatterns(config, targeted)
  const all = [...tensors]
  checkSaved(config, all)
  for (const { name, shape } of all) if (method.saves?.(name)) count += elementCount(shape)
  return count
}

/** PEFT keeps experts in stacked tensors and loads neither dropout nor DoRA for those, so no run should end in such files. */
function checkExpertAdapter({ lora_dropout, use_dora }: PeftConfig): void {
  const field = lora_dropout > 0 ? 'lora_dropout' : use_dora ? 'use_dora' : null
  if (field === null) return
  throw new EngineError(
    'unsupported',
    'expert_adapter_unsupported',
    `${field} does not work for adapters on experts, which PEFT would not load; ` +
      'leave it out, or leave the experts out of lora_target',
    { param: field },
  )
}

/** @throws EngineError `invalid` for layers in which the targets, that are somewhere, have no module. */
function checkLayers(config: PeftConfig, { targets }: LoraMethod, linears: readonly LinearModule[]): void {
  if (targetedPaths(linears, targets).size === 0) return
  const wanted = [config.layers_to_transform ?? []].flat()
  const empty = wanted.filter((layer) => {
    return targetedPaths(linears, targets, { ...config, layers_to_transform: [layer] }).size === 0
  })
  if (empty.length === 0) return
  const message = `layers_to_transform: ${empty.join(', ')} has no module that gets an adapter; layers count from 0`
  throw new EngineError('invalid', 'layers_unknown', message, { param: 'layers_to_transform' })
}

/** @throws EngineError `invalid` for keys of rank_pattern and alpha_pattern that mean no adapted module. */
function checkPatterns(config: PeftConfig, targeted: ReadonlySet<string>): void {
  for (const field of ['rank_pattern', 'alpha_pattern'] as const) {
    const unused = Object.keys(config[field] ?? {}).filter(
      (key) => ![...targeted].some((path) => matchesPattern(path, key)),
    )
    if (unused.length === 0) continue
    const message = `${field}: ${unused.join(', ')} matches no module that gets an adapter`
    throw new EngineError('invalid', 'pattern_unused', message, { param: field })
  }
}

/** @throws EngineError `invalid` for modules to train as a whole that the base has no tensor of, with some that it has. */
function checkSaved({ modules_to_save: names }: PeftConfig, tensors: readonly BaseTensor[]): void {
  const missing = (names ?? []).filter((module) => !tensors.some(({ name }) => isBelow(name, module)))
  if (missing.length === 0) return
  const known = new Set(tensors.map(({ name }) => name.split('.').at(-2)!))
  const tied = missing.includes('lm_head') ? ' (a tied head is trained as embed_tokens)' : ''
  throw new EngineError(
    'invalid',
    'additional_target_unknown',
    `additional_target ${missing.join(', ')} matches no module of this model${tied}; it has ${[...known].join(', ')}`,
    { param: 'additional_target' },
  )
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
