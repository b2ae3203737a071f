import { createHash } from 'node:crypto'
import { createRandom, type Random, type RandomState, restoreRandom } from '../random.ts'
import { sequencesOf, type TrainExample } from '../text/conversation.ts'
import { type Best, bestMetric, tracksBest, updateBest } from './best.ts'
import type { TrainConfig } from './config.ts'
import { isFlat } from './curve.ts'
import type { History, LogEntry, Progress, Results, StopReason } from './events.ts'
import { addMetrics, type Metrics, meansOf } from './objectives/metrics.ts'
import { epochAt, type Plan } from './plan.ts'

/** The random stream of dropout; the epochs' orders use the streams 0, 1, 2… of the same seed. */
const DROPOUT_STREAM = 0xffffffff

/** Everything that a run counts, as a checkpoint keeps it. Only plain data. */
export interface SavedRun {
  step: number
  /** Sum of the steps' losses since the last log entry, and how many there are. */
  windowLoss: number
  windowSteps: number
  /** What the objective measured in them. */
  windowMetrics: Metrics
  best?: Best
  /** The step at which the loss curve was found flat. */
  flatAt?: number
  /** Sum of all steps' losses. */
  lossSum: number
  tokens: number
  elapsedSeconds: number
  random: RandomState
  entries: LogEntry[]
  /** What the run was started with, to notice that it goes on with something else. */
  config: TrainConfig
  dataHash: string
}

/** The counters of a run: all that changes between steps besides parameters and optimizer. */
export class RunState {
  random: Random
  saved: SavedRun
  private readonly config: TrainConfig
  private readonly plan: Plan
  private readonly allParameters: number
  private readonly now: () => number
  private readonly startedAt: number
  /** Where this attempt began. */
  private begin = { step: 0, tokens: 0, elapsedSeconds: 0 }

  constructor(options: {
    config: TrainConfig
    plan: Plan
    examples: readonly TrainExample[]
    allParameters: number
    now?: () => number
  }) {
    this.config = options.config
    this.plan = options.plan
    this.allParameters = options.allParameters
    this.now = options.now ?? (() => performance.now())
    this.startedAt = this.now()
    this.random = createRandom(options.config.seed, DROPOUT_STREAM)
    this.saved = {
      step: 0,
      windowLoss: 0,
      windowSteps: 0,
      windowMetrics: {},
      lossSum: 0,
      tokens: 0,
      elapsedSeconds: 0,
      random: this.random.state(),
      entries: [],
      config: options.config,
      dataHash: hashExamples(options.examples),
    }
  }

  get step(): number {
    return this.saved.step
  }

  get best(): Best | undefined {
    return this.saved.best
  }

  /** Why the run ends before its last step, by its settings and what has happened; undefined while it goes on. */
  get stopReason(): StopReason | undefined {
    const { early_stopping_steps: patience, stop_when_flat: stopsWhenFlat } = this.config
    if (patience !== undefined && (this.saved.best?.since ?? 0) >= patience) return 'early_stopping'
    return stopsWhenFlat && this.saved.flatAt !== undefined ? 'flattened' : undefined
  }

  /** Goes on from a checkpoint's counters; returns what differs between its settings and these. */
  restore(saved: SavedRun): string[] {
    const differences = changedSettings(saved, this.saved)
    const { config, dataHash } = this.saved
    const windowMetrics = structuredClone(saved.windowMetrics)
    this.saved = { ...saved, entries: [...saved.entries], windowMetrics, config, dataHash }
    this.random = restoreRandom(saved.random)
    this.begin = { step: saved.step, tokens: saved.tokens, elapsedSeconds: saved.elapsedSeconds }
    return differences
  }

  /** The counters as of now, for a checkpoint. */
  snapshot(): SavedRun {
    return { ...this.saved, random: this.random.state(), elapsedSeconds: this.elapsed() }
  }

  /** Counts a finished step. */
  advance(loss: number, tokens: number, metrics: Metrics): void {
    this.saved.step++
    this.saved.windowLoss += loss
    this.saved.windowSteps++
    addMetrics(this.saved.windowMetrics, metrics)
    this.saved.lossSum += loss
    this.saved.tokens += tokens
  }

  /** Writes the means since the last entry into the history, and begins a new window. */
  log(values: { learningRate: number; gradNorm: number }): {
    loss: number
    metrics: Record<string, number>
  } {
    const loss = this.saved.windowLoss / this.saved.windowSteps
    const metrics = meansOf(this.saved.windowMetrics)
    this.saved.windowLoss = 0
    this.saved.windowSteps = 0
    this.saved.windowMetrics = {}
    this.addEntry({ loss, grad_norm: values.gradNorm, learning_rate: values.learningRate, ...metrics })
    return { loss, metrics }
  }

  /** Notices, once in a run, that the logged losses have stopped falling. */
  noticeFlat(): boolean {
    if (this.saved.flatAt !== undefined) return false
    const losses = this.saved.entries.flatMap(({ loss }) => (loss === undefined ? [] : [loss]))
    if (!isFlat(losses)) return false
    this.saved.flatAt = this.step
    return true
  }

  /**
   * Writes an evaluation into the history, and compares it with the best one where the run looks for that.
   *
   * @param values eval_loss and what else was measured, by its name in the log.
   * @returns everything that was written, and whether it is the best so far.
   */
  logEvaluation(
    values: Readonly<Record<string, number>>,
    seconds: number,
    examples: number,
  ): { metrics: Record<string, number>; isBest: boolean } {
    const batches = Math.ceil(examples / this.config.per_device_eval_batch_size)
    const metrics = {
      ...values,
      ...(this.config.stage === 'pt' ? { eval_perplexity: Math.exp(values.eval_loss!) } : {}),
      eval_runtime: round(seconds, 4),
      eval_samples_per_second: rate(examples, seconds),
      eval_steps_per_second: rate(batches, seconds),
    }
    this.addEntry(metrics)
    const value = (metrics as Record<string, number>)[bestMetric(this.config)]
    if (!tracksBest(this.config) || value === undefined) return { metrics, isBest: false }
    this.saved.best = updateBest(this.saved.best, { step: this.step, value }, this.config)
    return { metrics, isBest: this.saved.best.step === this.step }
  }

  progress(): Progress {
    const { step, tokens } = this.saved
    const { totalSteps } = this.plan
    const elapsedSeconds = this.elapsed()
    const seconds = elapsedSeconds - this.begin.elapsedSeconds
    const perStep = seconds / Math.max(1, step - this.begin.step)
    return {
      step,
      totalSteps,
      epoch: epochAt(this.plan, this.config, step),
      percentage: totalSteps === 0 ? 100 : Math.min(100, (100 * step) / totalSteps),
      elapsedSeconds,
      remainingSeconds: perStep * Math.max(0, totalSteps - step),
      tokens,
      tokensPerSecond: seconds > 0 ? (tokens - this.begin.tokens) / seconds : 0,
    }
  }

  history(): History {
    const { step, tokens, entries } = this.saved
    return {
      step,
      epoch: epochAt(this.plan, this.config, step),
      maxSteps: this.plan.totalSteps,
      epochs: this.plan.epochs,
      tokens,
      totalFlos: 6 * tokens * this.allParameters,
      ...(this.best ? { best: { step: this.best.step, value: this.best.value } } : {}),
      entries,
    }
  }

  /**
   * Closes the history of a run that came to its end. `examples` are those of one pass over the data, `modelStep` is the
   * step whose parameters are the result.
   */
  finish(examples: number, modelStep: number): Results {
    const { step, lossSum, entries } = this.saved
    const seconds = this.elapsed()
    const { epoch, totalFlos, tokens } = this.history()
    const speed = {
      train_runtime: round(seconds, 4),
      train_samples_per_second: rate(examples * epoch, seconds),
      train_steps_per_second: rate(step, seconds),
    }
    const train = { train_loss: lossSum / Math.max(1, step), total_flos: totalFlos, ...speed }
    const evaluation = entries.findLast((entry) => 'eval_loss' in entry && entry.step === modelStep)
    this.saved.entries = [...entries.filter((entry) => !('train_loss' in entry)), { step, epoch, ...train }]
    return {
      train: { epoch, num_input_tokens_seen: tokens, ...train },
      ...(evaluation ? { eval: { ...withoutStep(evaluation), epoch } } : {}),
    }
  }

  private elapsed(): number {
    return this.begin.elapsedSeconds + (this.now() - this.startedAt) / 1000
  }

  private addEntry(values: Record<string, number>): void {
    const { step } = this.saved
    const finite = Object.fromEntries(Object.entries(values).filter(([, value]) => Number.isFinite(value)))
    this.saved.entries.push({ step, epoch: epochAt(this.plan, this.config, step), ...finite })
  }
}

/** Settings that don't change what the steps compute. */
const NEUTRAL: ReadonlySet<string> = new Set<keyof TrainConfig>([
  'dataset_dir',
  'device',
  'eval_dataset',
  'per_device_eval_batch_size',
  'logging_steps',
  'save_steps',
  'save_total_limit',
  'save_only_model',
  'do_eval',
  'eval_strategy',
  'eval_steps',
  'compute_accuracy',
  'eval_on_each_dataset',
  'load_best_model_at_end',
  'metric_for_best_model',
  'greater_is_better',
  'early_stopping_steps',
  'stop_when_flat',
  'report_to',
  'output_dir',
  'overwrite_output_dir',
  'resume_from_checkpoint',
  'plot_loss',
])

function changedSettings(before: SavedRun, after: SavedRun): string[] {
  const fields = Object.keys({ ...before.config, ...after.config }) as (keyof TrainConfig)[]
  const changes = fields
    .filter((field) => !NEUTRAL.has(field))
    .map((field) => ({ field, was: text(before.config[field]), is: text(after.config[field]) }))
    .filter(({ was, is }) => was !== is)
    .map(({ field, was, is }) => `${field} was ${was}, is ${is}`)
  return before.dataHash === after.dataHash ? changes : [...changes, 'the training examples differ']
}

function text(value: unknown): string {
  return value === undefined ? 'not set' : JSON.stringify(value)
}

function hashExamples(examples: readonly TrainExample[]): string {
  const hash = createHash('sha256')
  for (const { inputIds, labels } of examples.flatMap(sequencesOf)) {
    hash.update(Int32Array.of(inputIds.length))
    hash.update(inputIds)
    hash.update(labels)
  }
  return hash.digest('hex')
}

function withoutStep({ step: _, ...metrics }: LogEntry): Record<string, number> {
  return metrics
}

function rate(count: number, seconds: number): number {
  return seconds > 0 ? round(count / seconds, 3) : 0
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
