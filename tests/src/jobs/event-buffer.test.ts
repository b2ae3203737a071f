import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { event } from '../../../src/jobs/event.ts'
import { EventBuffer } from '../../../src/jobs/event-buffer.ts'
import type { JobQueue } from '../../../src/jobs/queue.ts'
import type { NewEvent } from '../../../src/jobs/types.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

/** A queue that only takes events, and refuses the first `failures` times. */
function recordingQueue(failures = 0) {
  const writes: { messages: string[]; progress: unknown }[] = []
  let left = failures
  const record = async (_: string, events: NewEvent[], progress: unknown) => {
    if (left-- > 0) throw new Error('disk full')
    writes.push({ messages: events.map(({ message }) => message), progress })
  }
  return { writes, queue: { record } as unknown as JobQueue }
}

describe('EventBuffer', () => {
  it('writes what came within a tenth of a second in one batch, with the progress put together', async () => {
    const { queue, writes } = recordingQueue()
    const buffer = new EventBuffer(queue, 'run-1', { step: 0, loss: 9 }, () => {})
    buffer.add(event('progress', 'a', { step: 1 }))
    buffer.add(event('progress', 'b', { step: 2 }))
    await vi.advanceTimersByTimeAsync(100)
    buffer.add(event('log', 'c'))
    await buffer.close()
    expect(writes).toEqual([
      { messages: ['a', 'b'], progress: { step: 2, loss: 9 } },
      { messages: ['c'], progress: { step: 2, loss: 9 } },
    ])
  })

  it('keeps events in order while the database cannot take them, and reports why', async () => {
    const { queue, writes } = recordingQueue(2)
    const errors: unknown[] = []
    const buffer = new EventBuffer(queue, 'run-1', null, (error) => errors.push(error))
    buffer.add(event('log', 'a'))
    await vi.advanceTimersByTimeAsync(100)
    buffer.add(event('log', 'b'))
    await vi.advanceTimersByTimeAsync(2000)
    expect(writes.map(({ messages }) => messages)).toEqual([['a', 'b']])
    expect(errors).toHaveLength(2)
    await buffer.close()
  })
})
