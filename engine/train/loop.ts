import { EngineError } from '../errors.ts'
import type { TrainExample } from '../text/conversation.ts'
import { accumulateGradients, evaluateLoss } from './accumulate.ts'
import { loadCheckpoint, saveCheckpoint } from './checkpoint.ts'
import { clipGradients } from './clip.ts'
import type { TrainConfig } from './config.ts'
import type { TrainEvent } from './events.ts'
import { languageModel } from './objectives/language-model.ts'
import type { Objective } from './objectives/objective.ts'
import { createAdamW, decays } from './optimizers/adamw.ts'
import type { Optimizer } from './optimizers/optimizer.ts'
import { createBatchPicker, type Plan, planSteps } from './plan.ts'
import { RunState } from './run-state.ts'
import { createSchedule } from './schedule.ts'
import type { TrainStep } from './step.ts'

export interface TrainOptions {
  config: TrainConfig
  step: TrainStep
  /** What the stage learns, the same as the step's; next tokens when left out. */
  objective?: Objective
  examples: readonly TrainExample[]
  evalExamples?: readonly TrainExample[]
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
    evalExamples = [],
    padId,
    signal,
  } = options
  if (examples.length === 0) throw noExamples()
  const plan = planSteps(config, examples.length)
  const batchesOf = createBatchPicker(config, plan, examples)
  const learningRateAt = createSchedule(config, plan.totalSteps)
  const optimizer = createOptimizer(config, model)
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
  while (run.step < plan.totalSteps) {
    if (signal?.aborted) {
      if (run.step > savedStep) yield await save()
      throw cancelled(run.step, plan)
    }
    const { loss, gradients, tokens } = await accumulateGradients(model, batchesOf(run.step), objective, {
      padId,
      random: run.random,
    })
    const gradNorm = clipGradients(gradients, config.max_grad_norm)
    requireFinite(loss, gradNorm, run.step + 1, lastCheckpoint)
    const learningRate = learningRateAt(run.step)
    optimizer.update(gradients, learningRate)
    run.advance(loss, tokens)
    yield { type: 'step', loss, learningRate, gradNorm, ...run.progress() }

    const last = run.step === plan.totalSteps
    if (last || run.step % config.logging_steps === 0) {
      const meanLoss = run.log({ learningRate, gradNorm })
      yield { type: 'log', loss: meanLoss, learningRate, gradNorm, ...run.progress() }
    }
    if (evalExamples.length > 0 && evaluationDue(config, run.step, last)) {
      const batchSize = config.per_device_eval_batch_size
      const before = run.progress().elapsedSeconds
      const { loss: evalLoss } = await evaluateLoss(model, evalExamples, objective, { batchSize, padId })
      const seconds = run.progress().elapsedSeconds - before
      run.logEvaluation(evalLoss, seconds, evalExamples.length)
      yield { type: 'eval', loss: evalLoss, seconds, ...run.progress() }
    }
    if (last || run.step % config.save_steps === 0) yield await save()
  }
  const results = run.finish(examples.length)
  yield { type: 'done', results, history: run.history(), ...run.progress() }
}

function createOptimizer(config: TrainConfig, model: TrainStep): Optimizer {
  return createAdamW(model.parameters, {
    beta1: config.adam_beta1,
    beta2: config.adam_beta2,
    epsilon: config.adam_epsilon,
    weightDecay: config.weight_decay,
    decays,
  })
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

/** Refuses numbers that training can't go on from. @throws EngineError `invalid`. */
function requireFinite(loss: number, gradNorm: number, step: number, lastCheckpoint?: string): void {
  if (Number.isFinite(loss) && Number.isFinite(gradNorm)) return
  const what = Number.isFinite(loss) ? `gradient norm is ${gradNorm}` : `loss is ${loss}`
  const kept = lastCheckpoint
    ? `The last good checkpoint is ${lastCheckpoint}.`
    : 'No checkpoint was written yet.'
  throw new EngineError(
    'invalid',
    'training_diverged',
    `The ${what} at step ${step}, so training stopped. ${kept} A lower learning_rate, a warm-up or a max_grad_norm ` +
      'usually helps.',
    { param: 'learning_rate' },
  )
}

function startEvent(options: TrainOptions, plan: Plan, resumedStep: number): TrainEvent {
  const { parameters } = options.step
  return {
    type: 'start',
    totalSteps: plan.totalSteps,
    stepsPerEpoch: plan.stepsPerEpoch,
    epochs: plan.epochs,
    examples: options.examples.length,
    evalExamples: options.evalExamples?.length ?? 0,
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
