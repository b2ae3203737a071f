import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { byteProgressReporter, createStages } from '../../../src/tasks/progress.ts'

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] })
})
afterEach(() => {
  vi.useRealTimers()
})

/** What was reported, each as share, message and seconds left. */
function recorder() {
  const told: unknown[][] = []
  const report = (_: string, message: string, data: Record<string, unknown> = {}) =>
    void told.push([data.fraction, message, data.remaining_seconds])
  return { told, report }
}

describe('the progress of a task', () => {
  it('is told four times in a second at most, and always at the end', () => {
    const { told, report } = recorder()
    const tell = byteProgressReporter(report)
    for (let done = 0; done <= 100; done++) {
      tell({ done, total: 100 })
      vi.advanceTimersByTime(10)
    }
    expect(told.map(([share]) => share)).toEqual([0, 0.25, 0.5, 0.75, 1])
    expect(told.map(([, , left]) => left)).toEqual([null, 1, 1, 0, 0])
  })

  it('counts stages as parts of the whole', () => {
    const { told, report } = recorder()
    const stages = createStages(report, 2)
    for (const name of ['loss', 'answers']) {
      const done = stages.next(name, 4)
      for (const rows of [2, 4]) {
        vi.advanceTimersByTime(1000)
        done(rows)
      }
    }
    expect(told).toEqual([
      [0.25, 'loss 2/4', null],
      [0.5, 'loss 4/4', 4],
      [0.75, 'answers 2/4', 2],
      [1, 'answers 4/4', 0],
    ])
  })

  it('does not take what an earlier start had done for speed', () => {
    const { told, report } = recorder()
    const tell = byteProgressReporter(report)
    tell({ done: 80, total: 100 })
    vi.advanceTimersByTime(10_000)
    tell({ done: 90, total: 100 })
    expect(told.map(([, , left]) => left)).toEqual([null, 10])
  })
})
