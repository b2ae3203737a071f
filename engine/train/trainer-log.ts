import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { writeFileDurably } from '../weights/atomic-folder.ts'
import type { Progress, TrainEvent } from './events.ts'
import type { Curve } from './plot.ts'

const TRAINER_LOG_FILE = 'trainer_log.jsonl'

/** One line of trainer_log.jsonl, with LLaMA-Factory's fields; what does not apply is left out. */
export interface TrainerLogLine {
  current_steps: number
  total_steps: number
  loss?: number
  eval_loss?: number
  /** How often the chosen answer is rewarded more (stages rm and dpo). */
  accuracy?: number
  lr?: number
  epoch: number
  percentage: number
  /** H:MM:SS */
  elapsed_time: string
  remaining_time: string
  /** Tokens per second. */
  throughput: number
  total_tokens: number
}

/** Adds the line of a log, eval or done event. */
export function appendTrainerLog(
  outputDir: string,
  event: Extract<TrainEvent, { type: 'log' | 'eval' | 'done' }>,
): void {
  appendFileSync(join(outputDir, TRAINER_LOG_FILE), `${JSON.stringify(toLine(event, loggedValues(event)))}\n`)
}

function loggedValues(
  event: Extract<TrainEvent, { type: 'log' | 'eval' | 'done' }>,
): Pick<TrainerLogLine, 'loss' | 'eval_loss' | 'accuracy' | 'lr'> {
  if (event.type === 'done') return {}
  if (event.type === 'eval') return { eval_loss: event.loss }
  const accuracy = event.metrics['rewards/accuracies']
  return { loss: event.loss, ...(accuracy === undefined ? {} : { accuracy }), lr: event.learningRate }
}

/** The lines of a run's log; a last line that a crash cut short is left out. */
export function readTrainerLog(outputDir: string): TrainerLogLine[] {
  const path = join(outputDir, TRAINER_LOG_FILE)
  if (!existsSync(path)) return []
  return readFileSync(path, 'utf8')
    .split('\n')
    .flatMap((line) => parseLine(line) ?? [])
}

/** Drops what was logged after `step`, which a resumed run will log again. A finished run's closing line goes too. */
export function truncateTrainerLog(outputDir: string, step: number): void {
  const kept = readTrainerLog(outputDir).filter(
    (line) => line.current_steps <= step && (line.loss !== undefined || line.eval_loss !== undefined),
  )
  const text = kept.map((line) => `${JSON.stringify(line)}\n`).join('')
  writeFileDurably(join(outputDir, TRAINER_LOG_FILE), text)
}

/** The points of one metric, for a picture. */
export function logCurve(lines: readonly TrainerLogLine[], metric: 'loss' | 'eval_loss'): Curve {
  const points = lines.filter((line) => line[metric] !== undefined)
  return {
    steps: points.map((line) => line.current_steps),
    values: points.map((line) => line[metric]!),
  }
}

/** Seconds as H:MM:SS, rounded down; a day or more as LLaMA-Factory prints it ('1 day, 2:03:04'). */
export function formatDuration(seconds: number): string {
  const whole = Number.isFinite(seconds) ? Math.max(0, Math.floor(seconds)) : 0
  const days = Math.floor(whole / 86_400)
  const [hours, minutes, rest] = [Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60]
  const clock = `${hours}:${String(minutes).padStart(2, '0')}:${String(rest).padStart(2, '0')}`
  return days === 0 ? clock : `${days} day${days === 1 ? '' : 's'}, ${clock}`
}

function toLine(
  progress: Progress,
  values: Pick<TrainerLogLine, 'loss' | 'eval_loss' | 'accuracy' | 'lr'>,
): TrainerLogLine {
  return {
    current_steps: progress.step,
    total_steps: progress.totalSteps,
    ...values,
    epoch: progress.epoch,
    percentage: round(progress.percentage),
    elapsed_time: formatDuration(progress.elapsedSeconds),
    remaining_time: formatDuration(progress.remainingSeconds),
    throughput: round(progress.tokensPerSecond),
    total_tokens: progress.tokens,
  }
}

function parseLine(line: string): TrainerLogLine | undefined {
  try {
    const value: unknown = JSON.parse(line)
    if (typeof value === 'object' && value !== null && 'current_steps' in value)
      return value as TrainerLogLine
  } catch {
    // Not a whole line.
  }
  return undefined
}

function round(value: number): number {
  return Number(value.toFixed(2))
}
