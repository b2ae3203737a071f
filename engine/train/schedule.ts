import type { TrainConfig } from './config.ts'

export type ScheduleConfig = Pick<
  TrainConfig,
  'learning_rate' | 'lr_scheduler_type' | 'warmup_steps' | 'warmup_ratio'
>

/** The learning rate of each optimizer step; steps count from 0, so a warm-up begins with a rate of 0. */
export type Schedule = (step: number) => number

/**
 * The learning rates of transformers' lambda schedules (transformers/optimization.py): with w warm-up steps out of n,
 * the peak rate is multiplied by step / w during the warm-up, then by (n - step) / (n - w) for linear, by
 * (1 + cos(π (step - w) / (n - w))) / 2 for cosine, and by 1 for constant_with_warmup. constant has no warm-up.
 */
export function createSchedule(config: ScheduleConfig, totalSteps: number): Schedule {
  const warmup = warmupSteps(config, totalSteps)
  const decaySteps = Math.max(1, totalSteps - warmup)
  const afterWarmup: Record<TrainConfig['lr_scheduler_type'], (step: number) => number> = {
    constant: () => 1,
    constant_with_warmup: () => 1,
    linear: (step) => Math.max(0, (totalSteps - step) / decaySteps),
    cosine: (step) => Math.max(0, 0.5 * (1 + Math.cos((Math.PI * (step - warmup)) / decaySteps))),
  }
  const factor = afterWarmup[config.lr_scheduler_type]
  const hasWarmup = config.lr_scheduler_type !== 'constant'
  return (step) =>
    config.learning_rate * (hasWarmup && step < warmup ? step / Math.max(1, warmup) : factor(step))
}

/** Warm-up steps: warmup_steps when it is set (below 1 it is a fraction), else warmup_ratio of all steps, rounded up. */
export function warmupSteps(
  config: Pick<TrainConfig, 'warmup_steps' | 'warmup_ratio'>,
  totalSteps: number,
): number {
  if (config.warmup_steps >= 1) return config.warmup_steps
  return Math.ceil(totalSteps * (config.warmup_steps > 0 ? config.warmup_steps : config.warmup_ratio))
}
