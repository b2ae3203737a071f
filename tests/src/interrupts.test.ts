import { afterEach, describe, expect, it } from 'vitest'
import { type Interrupts, onInterrupt } from '../../src/interrupts.ts'

let interrupts: Interrupts | undefined
afterEach(() => interrupts?.close())

describe('onInterrupt', () => {
  it('takes a Ctrl-C that npx passes on once more for one, and a second one for a second', () => {
    const seen: Array<[number, string]> = []
    let now = 1000
    interrupts = onInterrupt(
      (count, signal) => seen.push([count, signal]),
      () => now,
    )
    process.emit('SIGINT', 'SIGINT')
    now += 20
    process.emit('SIGINT', 'SIGINT')
    expect(seen).toEqual([[1, 'SIGINT']])
    now += 800
    process.emit('SIGTERM', 'SIGTERM')
    expect(seen).toEqual([
      [1, 'SIGINT'],
      [2, 'SIGTERM'],
    ])
  })
})
