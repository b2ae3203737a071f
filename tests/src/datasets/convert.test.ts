import { describe, expect, it } from 'vitest'
import { lendAnswers } from '../../../src/datasets/convert/feedback.ts'
import { convertRow, type Stage } from '../../../src/datasets/convert/index.ts'
import { RowError } from '../../../src/datasets/convert/row-error.ts'
import { type RawEntry, readEntry } from '../../../src/datasets/entry.ts'

const convert = (row: Record<string, unknown>, entry: RawEntry = {}, stage: Stage = 'sft') =>
  convertRow(row, readEntry('test', { file_name: 'x.json', ...entry }), stage)
const reason = (row: Record<string, unknown>, entry?: RawEntry, stage?: Stage) => {
  try {
    convert(row, entry, stage)
  } catch (error) {
    if (error instanceof RowError) return error.message
    throw error
  }
  throw new Error('expected a RowError')
}

describe('alpaca', () => {
  it('joins instruction and input, and leaves an empty input out', () => {
    expect(convert({ instruction: 'Add.', input: '1 2', output: '3' })).toEqual({
      kind: 'chat',
      messages: [
        { role: 'user', content: 'Add.\n1 2' },
        { role: 'assistant', content: '3' },
      ],
    })
    expect(convert({ instruction: 'Hi.', input: '', output: 'Hello.' })).toMatchObject({
      messages: [{ content: 'Hi.' }, { content: 'Hello.' }],
    })
  })

  it('puts history pairs first and takes system and tools from their columns', () => {
    const columns = { prompt: 'q', response: 'a', history: 'h', system: 's', tools: 't' }
    expect(convert({ q: '3', a: '4', h: [['1', '2']], s: 'S', t: [{ name: 'f' }] }, { columns })).toEqual({
      kind: 'chat',
      system: 'S',
      tools: '[{"name":"f"}]',
      messages: [
        { role: 'user', content: '1' },
        { role: 'assistant', content: '2' },
        { role: 'user', content: '3' },
        { role: 'assistant', content: '4' },
      ],
    })
  })

  it('forgets every column that a columns object does not list', () => {
    const columns = { prompt: 'instruction', response: 'output' }
    expect(convert({ instruction: 'a', input: 'ignored', output: 'b' }, { columns })).toMatchObject({
      messages: [{ content: 'a' }, { content: 'b' }],
    })
  })

  it('says which keys it wanted and which there are', () => {
    expect(reason({ query: 'a', response: 'b' })).toBe(
      'it has neither `instruction` nor `input`; its keys are query, response',
    )
    expect(reason({ instruction: 'a' })).toBe('it has no response in `output`')
    expect(reason({ instruction: 'a', output: 7 })).toBe('`output` must be text, not a number')
    expect(reason({ a: 1 }, { columns: { prompt: 'q' } })).toBe('it has no `q`; its keys are a')
    expect(reason({ instruction: 'a\ud83d', output: 'b' })).toContain(
      '`instruction` holds half of a surrogate pair',
    )
    expect(convert({ instruction: 'a\ud83d\ude00', output: '\u0000' })).toMatchObject({ kind: 'chat' })
  })

  it('skips a row whose tools are no JSON, instead of ending the run', () => {
    const columns = { prompt: 'q', response: 'a', tools: 't' }
    for (const t of ['not json', '7', '[1]', 7]) {
      expect(reason({ q: '1', a: '2', t }, { columns })).toContain('`t` must be a list of tools as JSON')
    }
    for (const t of ['', ' ', null, '[]', []]) {
      expect(convert({ q: '1', a: '2', t }, { columns })).toMatchObject({ kind: 'chat' })
    }
    expect(
      reason(
        { instruction: 'a', output: 'b', h: [['x']] },
        { columns: { prompt: 'instruction', response: 'output', history: 'h' } },
      ),
    ).toContain('pairs')
  })

  it('is raw text for pt: the first question, whatever follows', () => {
    expect(convert({ text: 'Once upon.' }, { columns: { prompt: 'text' } }, 'pt')).toEqual({
      kind: 'text',
      text: 'Once upon.',
    })
    expect(convert({ instruction: 'a', output: 'b' }, {}, 'pt')).toEqual({ kind: 'text', text: 'a' })
    expect(reason({ text: ' ' }, { columns: { prompt: 'text' } }, 'pt')).toBe('its text is empty')
  })
})

describe('sharegpt', () => {
  const entry: RawEntry = { formatting: 'sharegpt' }
  const turn = (from: string, value: string) => ({ from, value })

  it('maps the roles and takes a leading system message', () => {
    const conversations = [
      turn('system', 'S'),
      turn('human', 'q'),
      turn('function_call', '{}'),
      turn('observation', 'o'),
      turn('gpt', 'a'),
    ]
    expect(convert({ conversations }, entry)).toEqual({
      kind: 'chat',
      system: 'S',
      messages: [
        { role: 'user', content: 'q' },
        { role: 'function', content: '{}' },
        { role: 'observation', content: 'o' },
        { role: 'assistant', content: 'a' },
      ],
    })
  })

  it('says why a row is skipped', () => {
    const why = (...conversations: unknown[]) => reason({ conversations }, entry)
    expect(why(turn('gpt', 'a'), turn('human', 'q'))).toContain(
      'message 1 has the role assistant where a question',
    )
    expect(why(turn('human', 'q'), turn('human', 'q'))).toContain(
      'message 2 has the role user where an answer',
    )
    expect(why(turn('human', 'q'), turn('gpt', 'a'), turn('human', 'r'))).toContain('it has 3 messages')
    expect(why(turn('bot', 'q'))).toBe('message 1 has the unknown role "bot"')
    expect(why({ from: 'human', value: 3 })).toContain('message 1: `value` must be text, not a number')
    expect(why('hi')).toContain('message 1 must be an object')
    expect(why()).toBe('it has no messages')
    expect(reason({}, entry)).toContain('`conversations` must be a list of messages')
  })

  it('reads the tags that the entry gives, and only those', () => {
    const tags = { role_tag: 'role', content_tag: 'content', user_tag: 'user', assistant_tag: 'assistant' }
    const messages = [
      { role: 'user', content: 'q' },
      { role: 'assistant', content: 'a' },
    ]
    const custom: RawEntry = { formatting: 'sharegpt', columns: { messages: 'messages' }, tags }
    expect(convert({ messages }, custom)).toMatchObject({
      messages: [{ role: 'user' }, { role: 'assistant' }],
    })
    expect(reason({ messages: [{ role: 'system', content: 'S' }, ...messages] }, custom)).toContain(
      'unknown role "system"',
    )
  })
})

describe('openai', () => {
  it('turns tool calls into a function message and keeps their results together', () => {
    const call = (name: string) => ({ id: name, type: 'function', function: { name, arguments: '{}' } })
    const messages = [
      { role: 'system', content: 'S' },
      { role: 'user', content: 'q' },
      { role: 'assistant', content: null, tool_calls: [call('f'), call('g')] },
      { role: 'tool', content: '1', tool_call_id: 'f' },
      { role: 'tool', content: '2', tool_call_id: 'g' },
      { role: 'assistant', content: 'a' },
    ]
    expect(convert({ messages }, { formatting: 'openai' })).toEqual({
      kind: 'chat',
      system: 'S',
      messages: [
        { role: 'user', content: 'q' },
        { role: 'function', content: '[{"name":"f","arguments":"{}"},{"name":"g","arguments":"{}"}]' },
        { role: 'observation', content: '1', more: ['2'] },
        { role: 'assistant', content: 'a' },
      ],
    })
  })

  it('does not learn a call of weight 0, in a chat as in an answer of a pair', () => {
    const call = { role: 'assistant', tool_calls: [{ function: { name: 'f', arguments: '{}' } }] }
    const question = { role: 'user', content: 'q' }
    const messages = [question, { ...call, weight: 0 }]
    expect(convert({ messages }, { formatting: 'openai' })).toMatchObject({
      messages: [{ role: 'user' }, { role: 'function', learned: false }],
    })
    const columns = { messages: 'messages', chosen: 'good', rejected: 'bad' }
    const pair = { messages: [question], good: call, bad: { role: 'assistant', content: 'no' } }
    expect(convert(pair, { formatting: 'openai', ranking: true, columns }, 'dpo')).toMatchObject({
      chosen: { role: 'function', content: '[{"name":"f","arguments":"{}"}]' },
      rejected: { role: 'assistant', content: 'no' },
    })
  })

  it("takes a developer's message for the system's, and text in parts", () => {
    const messages = [
      { role: 'developer', content: [{ type: 'text', text: 'S' }] },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'a' },
          { type: 'text', text: 'b' },
        ],
      },
      { role: 'assistant', content: 'c' },
    ]
    expect(convert({ messages }, { formatting: 'openai' })).toMatchObject({
      system: 'S',
      messages: [{ content: 'ab' }, { content: 'c' }],
    })
    const picture = [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }]
    expect(reason({ messages: picture }, { formatting: 'openai' })).toContain('each part of its content')
  })

  it('says why a row is skipped', () => {
    const why = (...messages: unknown[]) => reason({ messages }, { formatting: 'openai' })
    expect(why({ role: 'user', content: 'q' }, { role: 'assistant', content: null })).toContain(
      'message 2: `content`',
    )
    expect(why({ role: 'assistant', tool_calls: [{}] })).toContain('must have a `function`')
  })
})

describe('pairs of answers', () => {
  const columns = { prompt: 'instruction', query: 'input', chosen: 'good', rejected: 'bad' }
  const entry: RawEntry = { ranking: true, columns }

  it('are texts in an alpaca set', () => {
    const row = { instruction: 'Add.', input: '1 2', good: '3', bad: '4' }
    for (const stage of ['rm', 'dpo'] as const) {
      expect(convert(row, entry, stage)).toEqual({
        kind: 'pair',
        messages: [{ role: 'user', content: 'Add.\n1 2' }],
        chosen: { role: 'assistant', content: '3' },
        rejected: { role: 'assistant', content: '4' },
      })
    }
    expect(reason({ instruction: 'Add.', good: '3' }, entry, 'dpo')).toBe('it has no `bad`')
  })

  it('are messages in a sharegpt set, whose conversation ends with the question', () => {
    const shared: RawEntry = {
      formatting: 'sharegpt',
      ranking: true,
      columns: { messages: 'conversations', chosen: 'chosen', rejected: 'rejected' },
    }
    const [human, gpt] = [
      (value: string) => ({ from: 'human', value }),
      (value: string) => ({ from: 'gpt', value }),
    ]
    const row = { conversations: [human('1'), gpt('2'), human('3')], chosen: gpt('4'), rejected: gpt('5') }
    expect(convert(row, shared, 'dpo')).toMatchObject({
      messages: [{ content: '1' }, { content: '2' }, { content: '3' }],
      chosen: { content: '4' },
      rejected: { content: '5' },
    })
    expect(reason({ ...row, conversations: [human('1'), gpt('2')] }, shared, 'dpo')).toContain(
      'no question is left',
    )
    expect(reason({ ...row, rejected: human('5') }, shared, 'dpo')).toBe(
      '`rejected` has the role "human", which does not answer',
    )
    expect(reason({ ...row, chosen: 'text' }, shared, 'dpo')).toBe('`chosen` must be a message, not a string')
  })
})

describe('verdicts on answers', () => {
  const entry: RawEntry = { columns: { prompt: 'instruction', response: 'output', kto_tag: 'good' } }

  it('take the last answer of a conversation and the tag', () => {
    expect(convert({ instruction: 'Q', output: 'A', good: false }, entry, 'kto')).toMatchObject({
      kind: 'feedback',
      messages: [{ role: 'user', content: 'Q' }],
      answer: { role: 'assistant', content: 'A' },
      desirable: false,
    })
    expect(reason({ instruction: 'Q', output: 'A', good: 'yes' }, entry, 'kto')).toBe(
      '`good` must be true or false, not a string',
    )
  })

  it('read the verdicts of a CSV file, which are text', () => {
    const columns = { prompt: 'q', response: 'a', kto_tag: 'good' }
    const verdict = (good: unknown) => convert({ q: '1', a: '2', good }, { columns }, 'kto')
    expect([verdict('true'), verdict('False')]).toMatchObject([{ desirable: true }, { desirable: false }])
    expect(reason({ q: '1', a: '2', good: 'yes' }, { columns }, 'kto')).toContain(
      '`good` must be true or false',
    )
  })

  it('lend each row the answer of the row before it, within blocks of a thousand', () => {
    const rows = Array.from({ length: 1002 }, (_, index) => {
      const answer = { role: 'assistant' as const, content: String(index) }
      return { kind: 'feedback' as const, messages: [], answer, desirable: true, unrelated: answer }
    })
    lendAnswers(rows)
    const lent = rows.map(({ unrelated }) => Number(unrelated.content))
    expect([lent[0], lent[1], lent[999], lent[1000], lent[1001]]).toEqual([999, 0, 998, 1001, 1000])
  })
})
