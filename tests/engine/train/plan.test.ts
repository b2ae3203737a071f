import { describe, expect, it } from 'vitest'
import { createBatchPicker, planSteps } from '../../../engine/train/plan.ts'

const config = {
  num_train_epochs: 1,
  max_steps: -1,
  per_device_train_batch_size: 4,
  gradient_accumulation_steps: 1,
  disable_shuffling: false,
  seed: 3,
}
const examples = Array.from({ length: 64 }, (_, i) => {
  const inputIds = new Int32Array(1 + ((i * 37) % 64))
  return { inputIds, labels: inputIds }
})

function batches(group_by_length: boolean) {
  const options = { ...config, group_by_length }
  const plan = planSteps(options, examples.length)
  const pick = createBatchPicker(options, plan, examples)
  return Array.from({ length: plan.totalSteps }, (_, step) => pick(step)).flat()
}

/** Places that padding takes, in all batches together. */
const padding = (all: ReturnType<typeof batches>) =>
  all.reduce((sum, batch) => {
    const lengths = batch.map((example) => (example as (typeof examples)[number]).inputIds.length)
    return sum + lengths.length * Math.max(...lengths) - lengths.reduce((a, b) => a + b)
  }, 0)

describe('group_by_length', () => {
  it('visits every example once and pads a tenth of what chance does', () => {
    const grouped = batches(true)
    expect(new Set(grouped.flat()).size).toBe(examples.length)
    expect(padding(grouped)).toBeLessThan(padding(batches(false)) / 10)
  })

  it('is the same order every time, as resuming needs', () => {
    expect(batches(true)).toEqual(batches(true))
  })
})
