import { EngineError } from '../../errors.ts'
import type { TrainConfig } from '../config.ts'
import type { Parameter } from '../step.ts'
import { createAdafactor } from './adafactor.ts'
import { type AdamWOptions, createAdamW } from './adamw.ts'
import { blocksOf, createBAdam, requireStartBlock } from './badam.ts'
import { createGaLore } from './galore.ts'
import { createLion } from './lion.ts'
import { createMuon } from './muon.ts'
import { readOptimArgs } from './optim-args.ts'
import { decays, type Optimizer } from './optimizer.ts'
import { createSgd } from './sgd.ts'

/** The optimizer that a configuration asks for, over the parameters that it trains. */
export function createOptimizer(config: TrainConfig, parameters: readonly Parameter[]): Optimizer {
  const common: AdamWOptions = {
    beta1: config.adam_beta1,
    beta2: config.adam_beta2,
    epsilon: config.adam_epsilon,
    weightDecay: config.weight_decay,
    decays,
    rateFactor: loraPlusFactor(config),
  }
  if (config.use_muon) return createMuon(parameters, common)
  if (config.use_galore) return galore(config, parameters, common)
  if (config.use_badam) {
    const {
      badam_switch_mode: switchMode,
      badam_switch_interval: interval,
      badam_start_block: startBlock,
      seed,
    } = config
    const switchInterval = interval > 0 ? interval : Number.MAX_SAFE_INTEGER
    return createBAdam(parameters, { ...common, switchMode, switchInterval, startBlock, seed })
  }
  const given = readOptimArgs(config.optim, config.optim_args)
  switch (config.optim) {
    case 'sgd':
      return createSgd(parameters, { ...common, momentum: 0, ...given })
    case 'adafactor':
      return createAdafactor(parameters, { ...common, ...given })
    case 'lion_32bit':
      return createLion(parameters, common)
    default:
      return createAdamW(parameters, common)
  }
}

/**
 * LoRA+ (Hayou et al. 2024, arXiv:2402.12354) as LLaMA-Factory groups the parameters: B, and vectors such as DoRA's
 * magnitudes, learn faster than A.
 */
function loraPlusFactor({ loraplus_lr_ratio: ratio }: TrainConfig): (parameter: Parameter) => number {
  if (ratio === undefined) return () => 1
  return ({ name, shape }) => (name.includes('lora_B') || shape.length === 1 ? ratio : 1)
}

type NamedShape = Pick<Parameter, 'name' | 'shape'>

/**
 * Checks what depends on the parameters, before a run is queued.
 *
 * @throws EngineError `invalid` naming the field.
 */
export function checkOptimizer(config: TrainConfig, trained: readonly NamedShape[]): void {
  if (config.use_galore) checkGaLore(config, trained.filter(galoreTargets(config)))
  if (config.use_badam) requireStartBlock(config.badam_start_block, blocksOf(trained).length)
}

function galoreTargets({ galore_target: names }: TrainConfig): (parameter: NamedShape) => boolean {
  const isHeadOrEmbedding = (name: string) => /embed|lm_head|output_layer/.test(name)
  return ({ name, shape }) => {
    if (shape.length !== 2) return false
    return names.includes('all') ? !isHeadOrEmbedding(name) : names.some((target) => name.includes(target))
  }
}

function checkGaLore(
  { galore_target: names, galore_rank: rank }: TrainConfig,
  targeted: readonly NamedShape[],
): void {
  if (targeted.length === 0) {
    const message = `galore_target ${names.join(', ')} matches no matrix that is trained`
    throw new EngineError('invalid', 'galore_target_unknown', message, { param: 'galore_target' })
  }
  for (const { name, shape } of targeted) {
    if (rank <= Math.min(...shape)) continue
    const message = `galore_rank ${rank} is above what ${name} [${shape}] can have`
    throw new EngineError('invalid', 'galore_rank_too_high', message, { param: 'galore_rank' })
  }
}

function galore(config: TrainConfig, parameters: readonly Parameter[], common: AdamWOptions): Optimizer {
  const targets = galoreTargets(config)
  checkGaLore(config, parameters.filter(targets))
  return createGaLore(parameters, {
    ...common,
    rank: config.galore_rank,
    updateInterval: config.galore_update_interval,
    scale: config.galore_scale,
    targets,
    seed: config.seed,
  })
}
