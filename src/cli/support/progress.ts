import { MultiBar, Presets } from 'cli-progress'
import { formatSeconds, formatSmall } from './format.ts'
import { note } from './terminal.ts'

/** Where a job stands, in the form that a bar shows. */
export interface ProgressPoint {
  value: number
  total: number
  /** What is counted, such as 'step '; stands before the numbers. */
  unit: string
  /** What stands behind the bar, such as the loss. */
  details: string
}

/** Shows how a job goes on. */
export interface ProgressView {
  update(point: ProgressPoint): void
  /** A line that stays. */
  log(line: string): void
  close(): void
}

/** A bar where people look on, plain lines elsewhere; both on stderr. */
export function createProgressView(): ProgressView {
  return process.stderr.isTTY ? barView() : lineView(note)
}

function barView(): ProgressView {
  const bars = new MultiBar(
    {
      format: '{bar} {percentage}% | {unit}{value}/{total}{details}',
      stream: process.stderr,
      hideCursor: true,
      fps: 5,
      barsize: 24,
      // The job stops with a checkpoint at Ctrl-C, so the bar must not end the process.
      gracefulExit: false,
    },
    Presets.shades_classic,
  )
  let bar: ReturnType<typeof bars.create> | undefined
  return {
    update({ value, total, unit, details }) {
      bar ??= bars.create(total, 0, { unit, details })
      bar.setTotal(total)
      bar.update(value, { unit, details })
    },
    log(line) {
      if (bar) bars.log(`${line}\n`)
      else note(line)
    },
    close() {
      bars.stop()
    },
  }
}

/** A line for every twentieth of the way and for the end. */
export function lineView(write: (line: string) => void): ProgressView {
  let shown = -1
  return {
    update({ value, total, unit, details }) {
      const twentieth = Math.floor((20 * value) / Math.max(1, total))
      if (twentieth <= shown) return
      shown = twentieth
      write(
        `${String(Math.round((100 * value) / Math.max(1, total))).padStart(3)}% ${unit}${value}/${total}${details}`,
      )
    },
    log: write,
    close() {},
  }
}

/** What a training run reports after a step, as a point of its bar; undefined for an event without a step. */
export function trainingPoint(data: Record<string, unknown>): ProgressPoint | undefined {
  const { step, total_steps: total, loss, learning_rate, tokens_per_second, remaining_seconds } = data
  if (typeof step !== 'number' || typeof total !== 'number') return undefined
  const details = [
    typeof loss === 'number' && `loss ${loss.toFixed(4)}`,
    typeof learning_rate === 'number' && `lr ${formatSmall(learning_rate)}`,
    typeof tokens_per_second === 'number' && `${Math.round(tokens_per_second)} tokens/s`,
    typeof remaining_seconds === 'number' && `${formatSeconds(remaining_seconds)} left`,
  ].filter((part) => part !== false)
  return { value: step, total, unit: 'step ', details: details.map((part) => ` | ${part}`).join('') }
}

/** What a merge or an export reports, as a point of its bar. */
export function taskPoint(data: Record<string, unknown>): ProgressPoint | undefined {
  const { fraction, message, remaining_seconds } = data
  if (typeof fraction !== 'number') return undefined
  const left = typeof remaining_seconds === 'number' ? ` | ${formatSeconds(remaining_seconds)} left` : ''
  const what = typeof message === 'string' && message !== '' ? ` | ${message}` : ''
  return { value: Math.round(100 * fraction), total: 100, unit: '', details: `${what}${left}` }
}
