import { join } from 'node:path'
import { EngineError } from '../errors.ts'
import { sequencesOf, type TrainExample } from '../text/conversation.ts'
import { accumulateGradients, type EvaluationSet, evaluate, type StepGradients } from './accumulate.ts'
import { bestMetric } from './best.ts'
import { loadCheckpoint, loadParameters, saveCheckpoint } from './checkpoint.ts'
import { clipGradients } from './clip.ts'
import type { TrainConfig } from './config.ts'
import type { TrainEvent } from './events.ts'
import { languageModel } from './objectives/language-model.ts'
import type { Objective } from './objectives/objective.ts'
import { createOptimizer } from './optimizers/index.ts'
import type { Optimizer } from './optimizers/optimizer.ts'
import { createBatchPicker, type Plan, planSteps } from './plan.ts'
import { RunState } from './run-state.ts'
import { createSchedule } from './schedule.ts'
import type { TrainStep } from './step.ts'
import { checkpointName } from './trainer-state.ts'

export interface TrainOptions {
  config: TrainConfig
  step: TrainStep
  /** What the stage learns, the same as the step's; next tokens when left out. */
  objective?: Objective
  examples: readonly TrainExample[]
  /** What is held out; more than one set where each is also evaluated for itself. */
  evaluationSets?: readonly EvaluationSet[]
  padId: number
  /** Where checkpoint-N folders go; it exists. */
  outputDir: string
  /** Parameters of the whole model, trainable or not. */
  allParameters: number
  /** Writes the adapter or the weights as they are now, and the tokenizer's files, into an existing folder. */
  writeModel: (folder: string) => Promise<void> | void
  /** A checkpoint folder to go on from. */
  resumeFrom?: string
  /** Aborting it ends the run before the next step, with a checkpoint. */
  signal?: AbortSignal
  /** Milliseconds on any scale, for times and rates. */
  now?: () => number
}

/**
 * Trains `step.parameters` in place and tells what happens. A run that was resumed goes through the same numbers, bit for
 * bit, as one that was never interrupted. Ends with `done`.
 *
 * @throws EngineError `cancelled` after an abort, `invalid` when the loss or the gradient is not finite.
 */
export async function* train(options: TrainOptions): AsyncGenerator<TrainEvent> {
  const {
    config,
    step: model,
    objective = languageModel,
    examples,
    evaluationSets = [],
    padId,
    signal,
  } = options
  if (examples.length === 0) throw noExamples()
  const plan = planSteps(config, examples.length)
  const batchesOf = createBatchPicker(config, plan, examples)
  const learningRateAt = createSchedule(config, plan.totalSteps)
  const optimizer = createOptimizer(config, model.parameters)
  const run = new RunState({ config, plan, examples, allParameters: options.allParameters, now: options.now })
  const warnings = options.resumeFrom ? resume(options.resumeFrom, model, optimizer, run) : []
  let savedStep = run.step
  let lastCheckpoint = options.resumeFrom

  const save = async (): Promise<TrainEvent> => {
    const lastLearningRate = learningRateAt(Math.max(0, run.step - 1))
    const saved = await saveCheckpoint({ ...options, run, optimizer, lastLearningRate })
    savedStep = run.step
    lastCheckpoint = saved.path
    return { type: 'checkpoint', step: run.step, ...saved }
  }

  yield startEvent(options, plan, run.step)
  for (const message of warnings) yield { type: 'warning', code: 'resumed_run_differs', message }
  while (run.step < plan.totalSteps && run.stopReason === undefined) {
    if (signal?.aborted) {
      if (run.step > savedStep) yield await save()
      throw cancelled(run.step, plan)
    }
    const batches = batchesOf(run.step)
    const sums = await accumulateGradients(model, batches, objective, { padId, random: run.random })
    const gradNorm = clipGradients(sums.gradients, config.max_grad_norm)
    requireFinite(sums, gradNorm, { step: run.step + 1, batches, lastCheckpoint })
    const learningRate = learningRateAt(run.step)
    optimizer.update(sums.gradients, learningRate)
    run.advance(sums.loss, sums.tokens, sums.metrics)
    yield { type: 'step', loss: sums.loss, learningRate, gradNorm, ...run.progress() }

    const complete = run.step === plan.totalSteps
    if (complete || run.step % config.logging_steps === 0) {
      const logged = run.log({ learningRate, gradNorm })
      yield { type: 'log', ...logged, learningRate, gradNorm, ...run.progress() }
      if (run.noticeFlat()) yield flattened(run.step)
    }
    let isBest = false
    const ends = complete || run.stopReason !== undefined
    if (evaluationSets.length > 0 && evaluationDue(config, run.step, ends)) {
      const { event, isBest: better } = await evaluateNow(options, objective, run)
      isBest = better && config.load_best_model_at_end
      yield event
    }
    const stopped = run.stopReason !== undefined
    if (complete || stopped || isBest || run.step % config.save_steps === 0) yield await save()
  }
  if (run.stopReason) yield stopEvent(run, config)
  const best = takeBest(options, run)
  if (best) yield best
  const results = run.finish(examples.length, best?.type === 'best' ? best.step : run.step)
  yield { type: 'done', results, history: run.history(), ...run.progress() }
}

/** Takes over a checkpoint's parameters, moments and counters; returns warnings. */
function resume(folder: string, model: TrainStep, optimizer: Optimizer, run: RunState): string[] {
  const checkpoint = loadCheckpoint(folder, model.parameters)
  for (const { name, data } of model.parameters) data.set(checkpoint.parameters.get(name)!)
  optimizer.restore(checkpoint.optimizer)
  const differences = run.restore(checkpoint.run)
  if (differences.length === 0) return []
  const what = differences.join('; ')
  return [
    `${folder} goes on with other settings, so its losses aren't those of one uninterrupted run: ${what}.`,
  ]
}

function evaluationDue(config: TrainConfig, step: number, last: boolean): boolean {
  if (last && config.do_eval) return true
  return config.eval_strategy === 'steps' && step % (config.eval_steps ?? config.logging_steps) === 0
}

/** Evaluates the parameters as they are, and notes it in the run. */
async function evaluateNow(
  { config, step: model, evaluationSets = [], padId }: TrainOptions,
  objective: Objective,
  run: RunState,
): Promise<{ event: TrainEvent; isBest: boolean }> {
  const before = run.progress().elapsedSeconds
  const batchSize = config.per_device_eval_batch_size
  const values = await evaluate(model, evaluationSets, objective, { batchSize, padId })
  const seconds = run.progress().elapsedSeconds - before
  const { isBest, metrics } = run.logEvaluation(values, seconds, heldOut(evaluationSets))
  return { event: { type: 'eval', loss: values.eval_loss!, seconds, metrics, ...run.progress() }, isBest }
}

/** Takes the parameters of the best evaluation back, where that is asked for and another step was the last. */
function takeBest({ config, step: model, outputDir }: TrainOptions, run: RunState): TrainEvent | undefined {
  const { best } = run
  if (!config.load_best_model_at_end || !best || best.step === run.step) return undefined
  try {
    const values = loadParameters(join(outputDir, checkpointName(best.step)), model.parameters)
    for (const { name, data } of model.parameters) data.set(values.get(name)!)
    return { type: 'best', step: best.step, metric: bestMetric(config), value: best.value }
  } catch (error) {
    if (!(error instanceof EngineError)) throw error
    const message = `The best weights, of step ${best.step}, cannot be read: ${error.message} The result has the last ones.`
    return { type: 'warning', code: 'best_model_lost', message }
  }
}

function flattened(step: number): TrainEvent {
  const message =
    `The smoothed training loss has flattened by step ${step}: its last quarter is hardly lower than the one before. ` +
    'More steps will not help much; set stop_when_flat to end such a run by itself.'
  return { type: 'warning', code: 'loss_flattened', message }
}

function stopEvent(run: RunState, config: TrainConfig): TrainEvent {
  const reason = run.stopReason!
  const why =
    reason === 'flattened'
      ? 'the smoothed training loss has flattened (stop_when_flat)'
      : `${bestMetric(config)} has not become better than ${run.best?.value} of step ${run.best?.step} in ` +
        `${run.best?.since} evaluations (early_stopping_steps)`
  return { type: 'stop', step: run.step, reason, message: `Stopped after step ${run.step}: ${why}.` }
}

/** Refuses numbers that training can't go on from, naming the rows that made them. @throws EngineError `invalid`. */
function requireFinite(
  { loss, losses }: StepGradients,
  gradNorm: number,
  at: { step: number; batches: readonly (readonly TrainExample[])[]; lastCheckpoint?: string },
): void {
  if (Number.isFinite(loss) && Number.isFinite(gradNorm)) return
  const what = Number.isFinite(loss) ? `gradient norm is ${gradNorm}` : `loss is ${loss}`
  const culprit = losses.findIndex((part) => !Number.isFinite(part))
  const rows = describeRows(culprit === -1 ? at.batches.flat() : at.batches[culprit]!)
  const kept = at.lastCheckpoint
    ? `The last good checkpoint is ${at.lastCheckpoint}.`
    : 'No checkpoint was written yet.'
  throw new EngineError(
    'invalid',
    'training_diverged',
    `The ${what} at step ${at.step}, so training stopped. Its batch was ${rows}. ${kept} A lower learning_rate, a ` +
      'warm-up or a max_grad_norm usually helps.',
    { param: 'learning_rate' },
  )
}

/** Rows that an error names one by one; of more, the rest is counted. */
const MOST_NAMED = 16

function describeRows(examples: readonly TrainExample[]): string {
  const places = [...new Set(examples.flatMap((example) => sequencesOf(example)[0]!.places ?? []))]
  if (places.length === 0) return `${examples.length} examples of packed text`
  const rest = places.length - MOST_NAMED
  return places.slice(0, MOST_NAMED).join(', ') + (rest > 0 ? ` and ${rest} more rows` : '')
}

function heldOut(sets: readonly EvaluationSet[] = []): number {
  return sets.reduce((sum, { examples }) => sum + examples.length, 0)
}

function startEvent(options: TrainOptions, plan: Plan, resumedStep: number): TrainEvent {
  const { parameters } = options.step
  return {
    type: 'start',
    totalSteps: plan.totalSteps,
    stepsPerEpoch: plan.stepsPerEpoch,
    epochs: plan.epochs,
    examples: options.examples.length,
    evalExamples: heldOut(options.evaluationSets),
    trainableParameters: parameters.reduce((sum, { data }) => sum + data.length, 0),
    allParameters: options.allParameters,
    resumedStep,
  }
}

function noExamples(): EngineError {
  const message = 'Cannot find valid samples: after encoding, the dataset has no example to train on.'
  return new EngineError('invalid', 'no_examples', message, { param: 'dataset' })
}

function cancelled(step: number, plan: Plan): EngineError {
  return new EngineError('cancelled', 'cancelled', `Cancelled after step ${step} of ${plan.totalSteps}.`)
}
