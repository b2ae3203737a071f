import { describe, expect, it } from 'vitest'
import { resolveChatTemplate } from '../../../engine/text/chat-template.ts'
import {
  type EncodedExample,
  type FeedbackExample,
  IGNORE_INDEX,
  type Message,
  type PairExample,
} from '../../../engine/text/conversation.ts'
import { inferTurnLengths } from '../../../engine/text/encode.ts'
import { encodeRow } from '../../../engine/text/encode-answers.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { byteTokenizerFolder } from './byte-tokenizer.ts'

const tokenizer = loadTokenizer(byteTokenizerFolder())
const template = resolveChatTemplate(tokenizer)
const options = { template, cutoffLength: 10_000 }
const user = (content: string): Message => ({ role: 'user', content })
const assistant = (content: string): Message => ({ role: 'assistant', content })

const text = ({ inputIds }: EncodedExample) => tokenizer.decode(inputIds)
const learned = ({ inputIds, labels }: EncodedExample) =>
  tokenizer.decode(inputIds.filter((_, index) => labels[index] !== IGNORE_INDEX))

describe('a pair of answers', () => {
  const pair = {
    kind: 'pair' as const,
    messages: [user('a'), assistant('b'), user('question')],
    chosen: assistant('good'),
    rejected: assistant('a much worse answer'),
    place: 'set.json row 3',
  }

  it('has the same question twice, and only the answers count, not those of earlier turns', () => {
    const { chosen, rejected } = encodeRow(pair, tokenizer, options) as PairExample
    expect(text(chosen)).toBe(template.render([...pair.messages, pair.chosen]))
    expect(text(rejected)).toBe(template.render([...pair.messages, pair.rejected]))
    expect(learned(chosen)).toBe('good<|im_end|>\n')
    expect(learned(rejected)).toBe('a much worse answer<|im_end|>\n')
    expect([chosen.places, rejected.places]).toEqual([['set.json row 3'], ['set.json row 3']])
  })

  it('is cut by the longer answer, so that both keep the same part of the question', () => {
    const long = { ...pair, messages: [user('q'.repeat(100))], rejected: assistant('r'.repeat(90)) }
    const whole = encodeRow(long, tokenizer, options) as PairExample
    const count = ({ labels }: EncodedExample) => labels.filter((label) => label !== IGNORE_INDEX).length
    const prompt = whole.chosen.inputIds.length - count(whole.chosen)
    const [promptKept, answerKept] = inferTurnLengths(prompt, count(whole.rejected), 80)
    const { chosen, rejected } = encodeRow(long, tokenizer, { ...options, cutoffLength: 80 }) as PairExample
    expect(rejected.inputIds).toHaveLength(80)
    expect(count(rejected)).toBe(answerKept)
    expect(count(chosen)).toBe(count(whole.chosen))
    expect(chosen.inputIds.slice(0, promptKept)).toEqual(rejected.inputIds.slice(0, promptKept))
    expect(chosen.inputIds.length - count(chosen)).toBe(promptKept)
  })
})

describe('an answer with a verdict', () => {
  it('comes with the same question before an answer that belongs to another one', () => {
    const row = {
      kind: 'feedback' as const,
      messages: [user('question')],
      answer: assistant('own'),
      unrelated: assistant('foreign'),
      desirable: false,
    }
    const { answer, unrelated, desirable } = encodeRow(row, tokenizer, options) as FeedbackExample
    expect(learned(answer)).toBe('own<|im_end|>\n')
    expect(text(unrelated)).toBe(template.render([...row.messages, row.unrelated]))
    expect(learned(unrelated)).toBe('foreign<|im_end|>\n')
    expect(desirable).toBe(false)
  })
})
