import { epochOrder } from '../random.ts'
import { sequencesOf, type TrainExample } from '../text/conversation.ts'
import type { TrainConfig } from './config.ts'

export type PlanConfig = Pick<
  TrainConfig,
  | 'num_train_epochs'
  | 'max_steps'
  | 'per_device_train_batch_size'
  | 'gradient_accumulation_steps'
  | 'disable_shuffling'
  | 'group_by_length'
  | 'seed'
>

/** How many steps a run takes, by transformers' arithmetic. */
export interface Plan {
  totalSteps: number
  /** Optimizer steps in a pass over the data; the last one may hold fewer batches. */
  stepsPerEpoch: number
  batchesPerEpoch: number
  /** Passes over the data that are begun. */
  epochs: number
}

export function planSteps(config: PlanConfig, exampleCount: number): Plan {
  const batchesPerEpoch = Math.ceil(exampleCount / config.per_device_train_batch_size)
  const stepsPerEpoch = Math.max(1, Math.ceil(batchesPerEpoch / config.gradient_accumulation_steps))
  const totalSteps =
    config.max_steps > 0 ? config.max_steps : Math.ceil(config.num_train_epochs * stepsPerEpoch)
  return { totalSteps, stepsPerEpoch, batchesPerEpoch, epochs: Math.ceil(totalSteps / stepsPerEpoch) }
}

/** Passes over the data after `step` optimizer steps, with the fraction of the current one. */
export function epochAt(plan: Plan, config: PlanConfig, step: number): number {
  const epoch = Math.floor(step / plan.stepsPerEpoch)
  const batches = (step % plan.stepsPerEpoch) * config.gradient_accumulation_steps
  return epoch + batches / Math.max(1, plan.batchesPerEpoch)
}

/** Returns the examples of optimizer step `step` (from 0), as the batches to accumulate: a function of the step alone. */
export function createBatchPicker(
  config: PlanConfig,
  plan: Plan,
  examples: readonly TrainExample[],
): (step: number) => TrainExample[][] {
  const batchSize = config.per_device_train_batch_size
  const stepSize = batchSize * config.gradient_accumulation_steps
  let order: { epoch: number; indices: Uint32Array } | undefined
  return (step) => {
    const epoch = Math.floor(step / plan.stepsPerEpoch)
    if (order?.epoch !== epoch) {
      const shuffled = config.disable_shuffling
        ? Uint32Array.from(examples.keys())
        : epochOrder(config.seed, epoch, examples.length)
      const indices = config.group_by_length ? groupByLength(shuffled, examples, stepSize) : shuffled
      order = { epoch, indices }
    }
    const first = (step % plan.stepsPerEpoch) * stepSize
    const picked = Array.from(order.indices.subarray(first, first + stepSize), (index) => examples[index]!)
    return cut(picked, batchSize)
  }
}

/** Steps whose examples are sorted together. */
const STEPS_A_GROUP = 50

/**
 * Sorts runs of an order by length, longest first, as transformers' LengthGroupedSampler does: batches hold examples of
 * about the same length, and which ones meet is still up to chance.
 */
function groupByLength(order: Uint32Array, examples: readonly TrainExample[], stepSize: number): Uint32Array {
  const lengthOf = (index: number) =>
    Math.max(...sequencesOf(examples[index]!).map(({ inputIds }) => inputIds.length))
  return Uint32Array.from(
    cut([...order], STEPS_A_GROUP * stepSize).flatMap((group) => {
      return group.sort((a, b) => lengthOf(b) - lengthOf(a))
    }),
  )
}

/** Cuts a list into pieces of `size`; the last one may be shorter. */
function cut<T>(values: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(values.length / size) }, (_, i) =>
    values.slice(i * size, (i + 1) * size),
  )
}
