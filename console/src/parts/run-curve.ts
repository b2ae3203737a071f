import type { JobEvent } from '../api.ts'
import { smooth } from '../format.ts'
import type { Series } from './curve.tsx'

/** What a run has logged so far, by step. */
export interface History {
  loss: [number, number][]
  evaluation: [number, number][]
  rate: [number, number][]
}

export const emptyHistory = (): History => ({ loss: [], evaluation: [], rate: [] })

/** The history with one more event; a run that went on from a checkpoint logs some steps again. */
export function extend(history: History, { type, data }: JobEvent): History {
  const { step, mean_loss: loss, learning_rate: rate, eval_loss: evaluation } = data
  if (typeof step !== 'number') return history
  const put = (points: [number, number][], value: unknown): [number, number][] =>
    typeof value === 'number' ? [...points.filter(([known]) => known < step), [step, value]] : points
  if (type === 'evaluation') return { ...history, evaluation: put(history.evaluation, evaluation) }
  if (type !== 'log' || typeof loss !== 'number') return history
  return { ...history, loss: put(history.loss, loss), rate: put(history.rate, rate) }
}

/** The curves of one run: as logged, smoothed, and the evaluations. */
export function seriesOf(
  { loss, evaluation }: History,
  names: { loss: string; smoothed: string; evaluation: string },
  color = 0,
): Series[] {
  const smoothed = smooth(loss.map(([, value]) => value))
  return [
    { label: names.loss, points: loss, faint: true, color },
    { label: names.smoothed, points: loss.map(([step], index) => [step, smoothed[index]!] as const), color },
    { label: names.evaluation, points: evaluation, dashed: true, color: color + 1 },
  ]
}
