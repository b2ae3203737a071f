import type { Random } from '../random.ts'
import type { TrainExample } from '../text/conversation.ts'
import { addMetrics, type Metrics, meansOf } from './objectives/metrics.ts'
import type { Objective } from './objectives/objective.ts'
import type { Evaluation, TrainStep } from './step.ts'

export interface StepGradients {
  /** Mean over what the objective counts in all batches. */
  loss: number
  /** Its gradients, in the order of the step's parameters. */
  gradients: Float32Array[]
  /** Tokens read, without padding. */
  tokens: number
  metrics: Metrics
  /** Each batch's part of the loss, in order. */
  losses: number[]
}

/**
 * Runs several batches as one: every trained token (or pair) of the optimizer step weighs the same, however they are
 * spread over the batches. Takes one number per batch from `random` as the seed of its dropout.
 */
export async function accumulateGradients(
  model: TrainStep,
  batches: readonly (readonly TrainExample[])[],
  objective: Objective,
  options: { padId: number; random: Random },
): Promise<StepGradients> {
  const weight = meanWeight(batches.flat(), objective)
  const sum: StepGradients = { loss: 0, gradients: [], tokens: 0, metrics: {}, losses: [] }
  for (const examples of batches) {
    const batch = objective.collate(examples, options.padId)
    const { loss, gradients, metrics } = await model.run(batch, weight, options.random.nextUint32())
    sum.loss += loss
    sum.losses.push(loss)
    sum.tokens += batch.tokens
    addMetrics(sum.metrics, metrics)
    if (sum.gradients.length === 0) sum.gradients = gradients
    else for (const [index, total] of sum.gradients.entries()) addInPlace(total, gradients[index]!)
  }
  return sum
}

/**
 * The values of one evaluation by their names in the log, without gradients or dropout: eval_loss is the mean over what the
 * objective counts, the stage's own metrics follow. Where the examples come from several sets, each set's loss stands
 * beside as eval_<set>_loss.
 */
export async function evaluate(
  model: TrainStep,
  sets: readonly EvaluationSet[],
  objective: Objective,
  options: { batchSize: number; padId: number },
): Promise<Record<string, number>> {
  const weight = meanWeight(
    sets.flatMap(({ examples }) => examples),
    objective,
  )
  let total = 0
  const metrics: Metrics = {}
  const each: Record<string, number> = {}
  for (const { name, examples } of sets) {
    const { loss, metrics: ofSet } = await evaluateSet(model, examples, objective, { ...options, weight })
    total += loss
    addMetrics(metrics, ofSet)
    if (name !== undefined) each[`eval_${name}_loss`] = loss / (weight / meanWeight(examples, objective))
  }
  const means = Object.entries(meansOf(metrics)).map(([name, value]) => [`eval_${name}`, value] as const)
  return { eval_loss: total, ...each, ...Object.fromEntries(means) }
}

/** Examples that are evaluated together; `name` where their loss is also logged apart. */
export interface EvaluationSet {
  name?: string
  examples: readonly TrainExample[]
}

async function evaluateSet(
  model: TrainStep,
  examples: readonly TrainExample[],
  objective: Objective,
  { batchSize, padId, weight }: { batchSize: number; padId: number; weight: number },
): Promise<Required<Evaluation>> {
  const sum = { loss: 0, metrics: {} }
  for (let start = 0; start < examples.length; start += batchSize) {
    const batch = objective.collate(examples.slice(start, start + batchSize), padId)
    const { loss, metrics } = await model.evaluate(batch, weight)
    sum.loss += loss
    addMetrics(sum.metrics, metrics)
  }
  return sum
}

/** What each trained token or pair counts for in the mean over all of them; 0 when there is none. */
function meanWeight(examples: readonly TrainExample[], objective: Objective): number {
  const total = examples.reduce((sum, example) => sum + objective.weigh(example), 0)
  return total > 0 ? 1 / total : 0
}

function addInPlace(total: Float32Array, values: Float32Array): void {
  for (let i = 0; i < total.length; i++) total[i] = total[i]! + values[i]!
}
