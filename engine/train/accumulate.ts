import { collate, trainedTokenCount } from '../text/batch.ts'
import type { EncodedExample } from '../text/conversation.ts'
import type { Random } from './random.ts'
import type { TrainStep } from './step.ts'

export interface StepGradients {
  /** Mean over the trained tokens of all batches. */
  loss: number
  /** Its gradients, in the order of the step's parameters. */
  gradients: Float32Array[]
  /** Tokens read, without padding. */
  tokens: number
}

/**
 * Runs several batches as one: every trained token of the optimizer step weighs the same, however the tokens are spread
 * over the batches. Takes one number per batch from `random` as the seed of its dropout.
 */
export async function accumulateGradients(
  model: TrainStep,
  batches: readonly EncodedExample[][],
  padId: number,
  random: Random,
): Promise<StepGradients> {
  const weight = tokenWeight(batches.flat())
  const sum: StepGradients = { loss: 0, gradients: [], tokens: 0 }
  for (const examples of batches) {
    const batch = collate(examples, padId)
    const { loss, gradients } = await model.run(batch, weight, random.nextUint32())
    sum.loss += loss
    sum.tokens += batch.tokens
    if (sum.gradients.length === 0) sum.gradients = gradients
    else for (const [index, total] of sum.gradients.entries()) addInPlace(total, gradients[index]!)
  }
  return sum
}

/** Mean loss over the trained tokens of `examples`, without gradients or dropout. */
export async function evaluateLoss(
  model: TrainStep,
  examples: readonly EncodedExample[],
  options: { batchSize: number; padId: number },
): Promise<number> {
  const weight = tokenWeight(examples)
  let loss = 0
  for (let start = 0; start < examples.length; start += options.batchSize) {
    const batch = collate(examples.slice(start, start + options.batchSize), options.padId)
    loss += await model.evaluate(batch, weight)
  }
  return loss
}

/** What each trained token counts for in the mean over all of them; 0 when there is none. */
function tokenWeight(examples: readonly EncodedExample[]): number {
  const trained = examples.reduce((sum, example) => sum + trainedTokenCount(example), 0)
  return trained > 0 ? 1 / trained : 0
}

function addInPlace(total: Float32Array, values: Float32Array): void {
  for (let i = 0; i < total.length; i++) total[i] = total[i]! + values[i]!
}
