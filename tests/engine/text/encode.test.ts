import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import '../../fixed-seed.ts'
import { resolveChatTemplate } from '../../../engine/text/chat-template.ts'
import { type EncodedExample, IGNORE_INDEX, type Message } from '../../../engine/text/conversation.ts'
import { encodeConversation, inferTurnLengths } from '../../../engine/text/encode.ts'
import { packExamples, packText } from '../../../engine/text/packing.ts'
import { pieceText } from '../../../engine/text/pieces.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { checkEndOfTurn, splitTurns } from '../../../engine/text/turns.ts'
import { byteTokenizerFolder, writeModelFolder } from './byte-tokenizer.ts'

const tokenizer = loadTokenizer(byteTokenizerFolder())
const template = resolveChatTemplate(tokenizer)
const options = { template, cutoffLength: 10_000 }

const chat = (...contents: string[]) => ({
  kind: 'chat' as const,
  messages: contents.map(
    (content, index): Message => ({ role: index % 2 === 0 ? 'user' : 'assistant', content }),
  ),
})

function learnedText({ inputIds, labels }: EncodedExample): string {
  return tokenizer.decode(inputIds.filter((_, index) => labels[index] !== IGNORE_INDEX))
}

/** Turns of random words; the byte tokenizer gives one token a byte. */
const conversations = fc
  .array(
    fc.tuple(fc.string({ minLength: 1, unit: 'grapheme-ascii' }), fc.string({ unit: 'grapheme-ascii' })),
    {
      minLength: 1,
      maxLength: 5,
    },
  )
  .map((pairs) => chat(...pairs.flat()))

describe('encodeConversation', () => {
  it('learns exactly the responses with their end of turn', () => {
    fc.assert(
      fc.property(conversations, (conversation) => {
        const example = encodeConversation(conversation, tokenizer, options)
        expect(tokenizer.decode(example.inputIds)).toBe(template.render(conversation.messages))
        const answers = conversation.messages.filter(({ role }) => role === 'assistant')
        expect(learnedText(example)).toBe(answers.map(({ content }) => `${content}<|im_end|>\n`).join(''))
      }),
    )
  })

  it('gives each learned position its own token as the label', () => {
    const { inputIds, labels } = encodeConversation(chat('q', 'a'), tokenizer, options)
    for (const [index, label] of labels.entries())
      if (label !== IGNORE_INDEX) expect(label).toBe(inputIds[index])
  })

  it('shows an answer that is not to be learned without learning it', () => {
    const conversation = chat('q', 'a', 'r', 'b')
    conversation.messages[1]!.learned = false
    const example = encodeConversation(conversation, tokenizer, options)
    expect(tokenizer.decode(example.inputIds)).toBe(template.render(conversation.messages))
    expect(learnedText(example)).toBe('b<|im_end|>\n')
  })

  it('learns everything with trainOnPrompt', () => {
    const example = encodeConversation(chat('q', 'a', 'r', 'b'), tokenizer, {
      ...options,
      trainOnPrompt: true,
    })
    expect(example.labels).toEqual(example.inputIds)
  })

  it('learns the last answer only with maskHistory, in the same order of tokens', () => {
    const conversation = chat('q', 'a', 'r', 'b')
    const masked = encodeConversation(conversation, tokenizer, { ...options, maskHistory: true })
    expect(masked.inputIds).toEqual(encodeConversation(conversation, tokenizer, options).inputIds)
    expect(learnedText(masked)).toBe('b<|im_end|>\n')
  })

  it('keeps the last turn first when maskHistory has to cut', () => {
    const example = encodeConversation(chat('q'.repeat(90), 'a'.repeat(90), 'r', 'b'), tokenizer, {
      ...options,
      cutoffLength: 60,
      maskHistory: true,
    })
    expect(example.inputIds).toHaveLength(60)
    expect(learnedText(example)).toBe('b<|im_end|>\n')
  })

  it('refuses trainOnPrompt with maskHistory', () => {
    const both = { ...options, trainOnPrompt: true, maskHistory: true }
    expect(() => encodeConversation(chat('q', 'a'), tokenizer, both)).toThrow(/incompatible/)
  })

  it('never exceeds the cutoff and cuts heads of segments in order', () => {
    fc.assert(
      fc.property(
        conversations,
        fc.integer({ min: 1, max: 120 }),
        fc.boolean(),
        (conversation, cutoffLength, maskHistory) => {
          const example = encodeConversation(conversation, tokenizer, { template, cutoffLength, maskHistory })
          expect(example.inputIds.length).toBeLessThanOrEqual(cutoffLength)
          expect(example.labels).toHaveLength(example.inputIds.length)
        },
      ),
    )
  })

  it('learns raw text whole with the end token, cut at the cutoff', () => {
    const whole = encodeConversation({ kind: 'text', text: 'abc' }, tokenizer, options)
    expect([...whole.inputIds]).toEqual(
      [97, 98, 99, 257].map((id) => (id < 256 ? tokenizer.encode(String.fromCharCode(id))[0] : id)),
    )
    expect(whole.labels).toEqual(whole.inputIds)
    const cut = encodeConversation({ kind: 'text', text: 'abc' }, tokenizer, { template, cutoffLength: 2 })
    expect(tokenizer.decode(cut.inputIds)).toBe('ab')
  })

  it('refuses messages that do not alternate', () => {
    for (const messages of [[], chat('q').messages, chat('q', 'a').messages.toReversed()]) {
      expect(() => encodeConversation({ kind: 'chat', messages }, tokenizer, options)).toThrow(
        /must alternate/,
      )
    }
  })
})

describe('inferTurnLengths', () => {
  it('follows the formula of the three cases', () => {
    expect(inferTurnLengths(3000, 2000, 1000)).toEqual([600, 400])
    expect(inferTurnLengths(2000, 3000, 1000)).toEqual([400, 600])
    expect(inferTurnLengths(1000, 100, 1000)).toEqual([900, 100])
    expect(inferTurnLengths(100, 1000, 1000)).toEqual([100, 900])
    expect(inferTurnLengths(10, 20, 1000)).toEqual([10, 20])
  })

  it('stays within the budget and the lengths', () => {
    fc.assert(
      fc.property(
        fc.nat(5000),
        fc.nat(5000),
        fc.integer({ min: 1, max: 4096 }),
        (prompt, response, budget) => {
          const [keptPrompt, keptResponse] = inferTurnLengths(prompt, response, budget)
          expect(keptPrompt + keptResponse).toBeLessThanOrEqual(budget)
          expect(keptPrompt).toBeLessThanOrEqual(prompt)
          expect(keptResponse).toBeLessThanOrEqual(response)
          if (prompt + response <= budget) expect([keptPrompt, keptResponse]).toEqual([prompt, response])
        },
      ),
    )
  })
})

describe('splitTurns with templates whose renders do not continue each other', () => {
  const split = (source: string, ...contents: string[]) =>
    splitTurns(chat(...contents), resolveChatTemplate(loadTokenizer(byteTokenizerFolder(source)))).map(
      ({ prompt, response }) => ({ prompt: pieceText(prompt), response: pieceText(response) }),
    )

  it('learns each turn with its thought when the history drops thoughts', () => {
    const source =
      "{% for m in messages %}{% if m.role == 'assistant' %}{{ '[A]' }}{% if loop.last %}{{ '<think></think>' }}{% endif %}{{ m.content + '[E]' }}" +
      "{% else %}{{ '[U]' + m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '[A]' }}{% endif %}"
    expect(split(source, 'q', 'a', 'r', 'b')).toEqual([
      { prompt: '[U]q[A]', response: '<think></think>a[E]' },
      { prompt: '[U]r[A]', response: '<think></think>b[E]' },
    ])
  })

  it('learns the answer as written when the generation prompt opens a thought that the history lacks', () => {
    const source =
      "{% for m in messages %}{{ ('[A]' if m.role == 'assistant' else '[U]') + m.content + '[E]' }}{% endfor %}" +
      "{% if add_generation_prompt %}{{ '[A]<think>' }}{% endif %}"
    expect(split(source, 'q', 'a', 'r', 'b')).toEqual([
      { prompt: '[U]q[E][A]<think>', response: 'a[E]' },
      { prompt: '[U]r[E][A]<think>', response: 'b[E]' },
    ])
  })

  it('learns the last turn alone when the system text moves to the last question', () => {
    const source =
      "{% for m in messages %}{% if m.role == 'user' %}{% set later = messages[loop.index0 + 1:] | selectattr('role', 'equalto', 'user') | list %}" +
      "{{ '[U]' + ('SYS ' if later | length == 0 else '') + m.content }}{% else %}{{ '[A]' + m.content + '[E]' }}{% endif %}{% endfor %}" +
      "{% if add_generation_prompt %}{{ '[A]' }}{% endif %}"
    expect(split(source, 'q', 'a', 'r', 'b')).toEqual([
      { prompt: '[U]q[A]a[E][U]SYS r[A]', response: 'b[E]' },
    ])
  })
})

describe('checkEndOfTurn', () => {
  it('is content with an answer that ends with an end token, and warns where none does', () => {
    expect(checkEndOfTurn(template, tokenizer)).toBeUndefined()
    const endless = resolveChatTemplate(loadTokenizer(byteTokenizerFolder('{{ messages[-1].content }}')))
    expect(checkEndOfTurn(endless, tokenizer)).toMatch(/"Hello".*"<\|im_end\|>".*may not stop/)
  })
})

describe('packExamples', () => {
  const example = (length: number): EncodedExample => ({
    inputIds: new Int32Array(length).fill(length),
    labels: new Int32Array(length).fill(length),
  })

  it('fills each sequence with the longest examples that fit', () => {
    const { packed, dropped } = packExamples([1, 2, 3, 5, 8, 9].map(example), { cutoffLength: 9 })
    expect(packed.map(({ inputIds }) => [...new Set(inputIds)])).toEqual([[8], [5, 3], [2, 1]])
    expect(dropped).toBe(1)
  })

  it('loses no token of the examples that fit', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(40)), fc.integer({ min: 2, max: 30 }), (lengths, cutoffLength) => {
        const { packed, dropped } = packExamples(lengths.map(example), { cutoffLength })
        const fitting = lengths.filter((length) => length < cutoffLength)
        expect(dropped).toBe(lengths.length - fitting.length)
        const tokens = packed.flatMap(({ inputIds }) => [...inputIds]).sort((a, b) => a - b)
        expect(tokens).toEqual(fitting.flatMap((length) => Array(length).fill(length)).sort((a, b) => a - b))
        for (const { inputIds } of packed) expect(inputIds.length).toBeLessThan(cutoffLength)
      }),
    )
  })

  it('neat packing notes where examples end and learns no first token from the example before', () => {
    const { packed } = packExamples([example(3), example(2)], { cutoffLength: 8, neatPacking: true })
    expect(packed).toHaveLength(1)
    expect(packed[0]!.packed).toEqual([3, 2])
    expect([packed[0]!.labels[0], packed[0]!.labels[3]]).toEqual([-100, -100])
  })
})

describe('packText', () => {
  it('cuts the joined texts into full blocks and drops the remainder', () => {
    const blocks = packText(['abcd', 'ef'], tokenizer, { cutoffLength: 3 })
    expect(blocks.map(({ inputIds }) => tokenizer.decode(inputIds))).toEqual(['abc', 'd<|im_end|>e'])
    expect(blocks[0]?.labels).toEqual(blocks[0]?.inputIds)
  })

  it('says when the texts do not fill one block', () => {
    expect(() => packText(['ab'], tokenizer, { cutoffLength: 4 })).toThrow(
      /Cannot find sufficient samples.* 3 tokens/,
    )
  })

  it('starts each block with bos when the tokenizer adds it', () => {
    const adding = loadTokenizer(writeModelFolder({ 'tokenizer_config.json': { add_bos_token: true } }))
    const blocks = packText(['abcdef'], adding, { cutoffLength: 3 })
    expect(blocks.map(({ inputIds }) => adding.decode(inputIds))).toEqual([
      '<|im_start|>bc',
      '<|im_start|>ef',
    ])
  })
})
