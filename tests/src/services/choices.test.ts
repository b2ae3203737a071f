import { describe, expect, it } from 'vitest'
import type { AnswerEvent } from '../../../src/engine-host/protocol.ts'
import { afterStarts, type Begin, type ChoiceEvent, interleave } from '../../../src/services/choices.ts'
import { UsageCounter } from '../../../src/services/generation.ts'

const START: AnswerEvent = { type: 'start', promptTokens: 3 }
const text = (value: string): AnswerEvent => ({ type: 'text', text: value })
const never = new AbortController().signal

/** An answer of these texts, and how many of its kind are being read at the same time. */
function answers(texts: string[][], watch = { running: 0, most: 0, ended: 0 }): Begin[] {
  return texts.map(
    (pieces) =>
      async function* () {
        watch.most = Math.max(watch.most, ++watch.running)
        try {
          yield START
          for (const piece of pieces) {
            await new Promise(setImmediate)
            if (piece === '!') throw new Error('broken')
            yield text(piece)
          }
        } finally {
          watch.running--
          watch.ended++
        }
      },
  )
}

async function read(events: AsyncIterable<ChoiceEvent>): Promise<string[]> {
  const texts: string[] = []
  for await (const { choice, event } of events) {
    if (event.type === 'text') texts[choice] = (texts[choice] ?? '') + event.text
  }
  return texts
}

describe('interleave', () => {
  it('hands on the events of all answers, some at a time', async () => {
    const watch = { running: 0, most: 0, ended: 0 }
    const texts = Array.from({ length: 7 }, (_, i) => [`${i}`, 'a', 'b'])
    expect(await read(interleave(answers(texts, watch), 3, never))).toEqual(
      texts.map((each) => each.join('')),
    )
    expect(watch).toEqual({ running: 0, most: 3, ended: 7 })
  })

  it('ends all when one fails', async () => {
    const watch = { running: 0, most: 0, ended: 0 }
    const all = answers([['a', '!'], ['b'], ['c']], watch)
    await expect(read(interleave(all, 3, never))).rejects.toThrow('broken')
  })

  it('tells the answers when the signal is aborted or the reader leaves', async () => {
    for (const how of ['abort', 'leave']) {
      const told: boolean[] = []
      const abort = new AbortController()
      const waiting: Begin = async function* (signal) {
        yield START
        await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
        told.push(signal.aborted)
      }
      for await (const _ of interleave([waiting, waiting], 2, abort.signal)) {
        if (how === 'leave') break
        abort.abort()
      }
      await new Promise(setImmediate)
      expect(told, how).toEqual([true, true])
    }
  })
})

describe('afterStarts', () => {
  it('says nothing before every answer has started, so that an error comes first', async () => {
    const refused: Begin = async function* (signal) {
      if (!signal.aborted) throw new Error('full')
      yield START
    }
    const events = afterStarts(interleave([...answers([['a']]), refused], 2, never), 2)
    await expect(events.next()).rejects.toThrow('full')
  })
})

describe('UsageCounter', () => {
  it('counts a prompt once however many answers it gets', () => {
    const counter = new UsageCounter(2)
    const event = { type: 'finish', reason: 'stop', promptTokens: 5, completionTokens: 3 } as const
    for (const choice of [0, 1, 2, 3]) counter.add(choice, { ...event, cachedTokens: 1, reasoningTokens: 2 })
    expect(counter.usage).toEqual({
      promptTokens: 10,
      completionTokens: 12,
      cachedTokens: 2,
      reasoningTokens: 8,
      acceptedPredictionTokens: 0,
      rejectedPredictionTokens: 0,
    })
  })
})
