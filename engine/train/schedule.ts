import type { TrainConfig } from './config-schema.ts'

export type ScheduleConfig = Pick<
  TrainConfig,
  'learning_rate' | 'lr_scheduler_type' | 'warmup_steps' | 'warmup_ratio'
> &
  Partial<Pick<TrainConfig, 'lr_scheduler_kwargs'>>

/** The learning rate of each optimizer step; steps count from 0, so a warm-up begins with a rate of 0. */
export type Schedule = (step: number) => number

/** Where a step is: `progress` goes from 0 to 1 between the end of the warm-up and the end of the run. */
interface Moment {
  step: number
  progress: number
  warmup: number
  totalSteps: number
}

type Kwargs = Readonly<Record<string, number>>

/** What each schedule makes of the peak rate after the warm-up; the fields of lr_scheduler_kwargs that it reads. */
const FACTORS: Record<
  TrainConfig['lr_scheduler_type'],
  { kwargs: readonly string[]; factor: (moment: Moment, kwargs: Kwargs, peak: number) => number }
> = {
  constant: { kwargs: [], factor: () => 1 },
  constant_with_warmup: { kwargs: [], factor: () => 1 },
  linear: { kwargs: [], factor: ({ progress }) => Math.max(0, 1 - progress) },
  cosine: {
    kwargs: ['num_cycles'],
    factor: ({ progress }, { num_cycles: cycles = 0.5 }) => Math.max(0, cosine(2 * cycles * progress)),
  },
  cosine_with_restarts: {
    kwargs: ['num_cycles'],
    factor: ({ progress }, { num_cycles: cycles = 1 }) =>
      progress >= 1 ? 0 : Math.max(0, cosine((cycles * progress) % 1)),
  },
  cosine_with_min_lr: {
    kwargs: ['num_cycles', 'min_lr', 'min_lr_rate'],
    factor({ progress }, { num_cycles: cycles = 0.5, min_lr, min_lr_rate = 0 }, peak) {
      const least = min_lr === undefined ? min_lr_rate : min_lr / peak
      return Math.max(0, cosine(2 * cycles * progress) * (1 - least) + least)
    },
  },
  polynomial: {
    kwargs: ['lr_end', 'power'],
    factor({ step, totalSteps, progress }, { lr_end = 1e-7, power = 1 }, peak) {
      if (step > totalSteps) return lr_end / peak
      return ((peak - lr_end) * (1 - progress) ** power + lr_end) / peak
    },
  },
  inverse_sqrt: {
    kwargs: ['timescale'],
    factor({ step, warmup }, { timescale = warmup || 10_000 }) {
      return 1 / Math.sqrt((step + timescale - warmup) / timescale)
    },
  },
}

/** (1 + cos(π·x)) / 2. */
function cosine(x: number): number {
  return 0.5 * (1 + Math.cos(Math.PI * x))
}

/** The names that lr_scheduler_kwargs may hold for a schedule. */
export function scheduleKwargs(type: TrainConfig['lr_scheduler_type']): readonly string[] {
  return FACTORS[type].kwargs
}

/**
 * The learning rates of transformers' lambda schedules (transformers/optimization.py): the peak rate times step / w
 * during a warm-up of w steps, which all but `constant` have, then times the schedule's factor.
 */
export function createSchedule(config: ScheduleConfig, totalSteps: number): Schedule {
  const warmup = warmupSteps(config, totalSteps)
  const decaySteps = Math.max(1, totalSteps - warmup)
  const { factor } = FACTORS[config.lr_scheduler_type]
  const hasWarmup = config.lr_scheduler_type !== 'constant'
  const peak = config.learning_rate
  return (step) => {
    if (hasWarmup && step < warmup) return (peak * step) / Math.max(1, warmup)
    const moment = { step, progress: (step - warmup) / decaySteps, warmup, totalSteps }
    return peak * factor(moment, config.lr_scheduler_kwargs ?? {}, peak)
  }
}

/** Warm-up steps: warmup_steps when it is set (below 1 it is a fraction), else warmup_ratio of all steps, rounded up. */
export function warmupSteps(
  config: Pick<TrainConfig, 'warmup_steps' | 'warmup_ratio'>,
  totalSteps: number,
): number {
  if (config.warmup_steps >= 1) return config.warmup_steps
  return Math.ceil(totalSteps * (config.warmup_steps > 0 ? config.warmup_steps : config.warmup_ratio))
}
