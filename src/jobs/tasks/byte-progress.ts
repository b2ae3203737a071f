import type { ByteProgress } from '../../../engine/weights/model-writer.ts'
import type { TaskContext } from '../protocol.ts'

/** Enough for a bar that moves; a report costs a row. */
const REPORT_MS = 250

/** Turns bytes done into progress events with the remaining time, a few in a second. */
export function byteProgressReporter(report: TaskContext['report']): (progress: ByteProgress) => void {
  const start = performance.now()
  let last = Number.NEGATIVE_INFINITY
  return ({ done, total, message = '' }) => {
    const now = performance.now()
    if (now - last < REPORT_MS && done < total) return
    last = now
    const fraction = total === 0 ? 1 : Math.min(1, done / total)
    const elapsed = (now - start) / 1000
    const remaining = fraction === 0 ? null : Math.round((elapsed * (1 - fraction)) / fraction)
    report('progress', message, { fraction, message, remaining_seconds: remaining })
  }
}
