import type { Stages } from '../../evaluation/task.ts'
import type { TaskContext } from '../protocol.ts'

const REPORT_MS = 250

/** Reports the share of all stages that is done and the remaining time, a few times in a second. */
export function createStages(report: TaskContext['report'], count: number): Stages {
  const start = performance.now()
  let begun = 0
  let last = Number.NEGATIVE_INFINITY
  /** Rows of an earlier start took no time in this one. */
  let before: number | undefined
  return {
    next(message, total) {
      const stage = begun++
      return (done) => {
        const fraction = Math.min(1, (stage + (total === 0 ? 1 : done / total)) / count)
        before ??= fraction
        const now = performance.now()
        if (now - last < REPORT_MS && done < total) return
        last = now
        const worked = fraction - before
        const remaining = worked > 0 ? Math.round((((now - start) / 1000) * (1 - fraction)) / worked) : null
        report('progress', message, {
          fraction,
          message: `${message} ${done}/${total}`,
          remaining_seconds: remaining,
        })
      }
    },
  }
}
