import { clipGradients } from '../../engine/train/clip.ts'
import { createAdamW } from '../../engine/train/optimizers/adamw.ts'
import { createSchedule } from '../../engine/train/schedule.ts'
import type { TokenBatch, TrainStep } from '../../engine/train/step.ts'
import type { CurvePoint } from './reference.ts'

/** Trains on the given batches as the reference did: AdamW without decay, 10 % warm-up, cosine, norm clipped at 1. */
export async function trainCurve(
  step: TrainStep,
  batches: readonly TokenBatch[],
  peak: number,
): Promise<CurvePoint[]> {
  const optimizer = createAdamW(step.parameters, { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 })
  const warmup = Math.max(1, Math.floor(batches.length / 10))
  const schedule = createSchedule(
    { learning_rate: peak, lr_scheduler_type: 'cosine', warmup_steps: warmup, warmup_ratio: 0 },
    batches.length,
  )
  const curve: CurvePoint[] = []
  for (const [index, batch] of batches.entries()) {
    const { loss, gradients } = await step.run(batch, 1 / batch.labels.length)
    const norm = clipGradients(gradients, 1)
    optimizer.update(gradients, schedule(index))
    curve.push({ step: index + 1, lr: schedule(index), loss, grad_norm: norm })
  }
  return curve
}
