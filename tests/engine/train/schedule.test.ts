import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { TrainConfig } from '../../../engine/train/config.ts'
import { createSchedule, warmupSteps } from '../../../engine/train/schedule.ts'
import more from '../../parity/optimizer-reference.json' with { type: 'json' }
import reference from '../../parity/train-reference.json' with { type: 'json' }
import { NEEDS_SHARED, SHARED, sharedMissing } from '../../shared.ts'

describe('a schedule', () => {
  it.each(reference.schedules)(
    '$lr_scheduler_type over $total steps, warm-up $warmup_steps or $warmup_ratio: as transformers',
    (run) => {
      const lr_scheduler_type = run.lr_scheduler_type as TrainConfig['lr_scheduler_type']
      const rateAt = createSchedule({ ...run, lr_scheduler_type, learning_rate: 3e-4 }, run.total)
      for (const [step, rate] of run.rates.entries())
        expect(Math.abs(rateAt(step) - rate)).toBeLessThan(1e-18)
    },
  )

  it.each(more.schedules)('$lr_scheduler_type with $kwargs over $total steps: as transformers', (run) => {
    const config = {
      lr_scheduler_type: run.lr_scheduler_type as TrainConfig['lr_scheduler_type'],
      lr_scheduler_kwargs: run.kwargs as unknown as Record<string, number>,
      learning_rate: 3e-4,
      warmup_steps: run.warmup_steps,
      warmup_ratio: 0,
    }
    const rateAt = createSchedule(config, run.total)
    for (const [step, rate] of run.rates.entries()) {
      expect(Math.abs(rateAt(step) - rate)).toBeLessThan(1e-12) // the reference keeps nine digits
    }
  })

  it('rounds a fraction of warm-up steps up, and lets warmup_steps win over warmup_ratio', () => {
    expect(warmupSteps({ warmup_steps: 0, warmup_ratio: 0.1 }, 21)).toBe(3)
    expect(warmupSteps({ warmup_steps: 0.1, warmup_ratio: 0.5 }, 21)).toBe(3)
    expect(warmupSteps({ warmup_steps: 7, warmup_ratio: 0.5 }, 21)).toBe(7)
  })

  it.skipIf(sharedMissing())(`gives the rates of the golden run ${NEEDS_SHARED}`, () => {
    const { plain_curve: curve } = JSON.parse(readFileSync(`${SHARED}golden/llama/reference.json`, 'utf8'))
    const fields = {
      learning_rate: 5e-3,
      lr_scheduler_type: 'cosine',
      warmup_steps: 0,
      warmup_ratio: 0.1,
    } as const
    const rateAt = createSchedule(fields, curve.length)
    for (const { step, lr } of curve) expect(rateAt(step - 1)).toBeCloseTo(lr, 15)
  })
})
