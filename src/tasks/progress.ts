import type { ByteProgress } from '../../engine/weights/model-writer.ts'
import type { Stages } from '../evaluation/task.ts'
import type { TaskContext } from '../jobs/protocol.ts'

/** Enough for a bar that moves; a report costs a row. */
const REPORT_MS = 250

/** Bytes done as progress events, a few in a second. */
export function byteProgressReporter(report: TaskContext['report']): (progress: ByteProgress) => void {
  const tell = shareReporter(report)
  return ({ done, total, message = '' }) => tell(total === 0 ? 1 : done / total, message)
}

/** The done share of the work as progress events, a few in a second. */
export function shareProgressReporter(
  report: TaskContext['report'],
): (progress: { fraction: number; message: string }) => void {
  const tell = shareReporter(report)
  return ({ fraction, message }) => tell(fraction, message)
}

/** The share of all stages that is done as progress events, a few in a second. */
export function createStages(report: TaskContext['report'], count: number): Stages {
  const tell = shareReporter(report)
  let begun = 0
  return {
    next(message, total) {
      const stage = begun++
      return (done) => {
        const share = total === 0 ? 1 : done / total
        tell((stage + share) / count, `${message} ${done}/${total}`, share === 1)
      }
    },
  }
}

/** Reports a share of the work and the time that the rest will take. What an earlier start had done took no time in this one. */
function shareReporter(report: TaskContext['report']) {
  const start = performance.now()
  let last = Number.NEGATIVE_INFINITY
  let before: number | undefined
  return (share: number, message: string, isMilestone = share >= 1): void => {
    const fraction = Math.min(1, share)
    before ??= fraction
    const now = performance.now()
    if (now - last < REPORT_MS && !isMilestone) return
    last = now
    const worked = fraction - before
    const remaining = worked > 0 ? Math.round((((now - start) / 1000) * (1 - fraction)) / worked) : null
    report('progress', message, { fraction, message, remaining_seconds: remaining })
  }
}
