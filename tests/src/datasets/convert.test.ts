import { describe, expect, it } from 'vitest'
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
  it('turns tool calls into a function message and merges tool results', () => {
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
        { role: 'observation', content: '1\n2' },
        { role: 'assistant', content: 'a' },
      ],
    })
  })

  it('says why a row is skipped', () => {
    const why = (...messages: unknown[]) => reason({ messages }, { formatting: 'openai' })
    expect(why({ role: 'user', content: 'q' }, { role: 'assistant', content: null })).toContain(
      'message 2: `content`',
    )
    expect(why({ role: 'assistant', tool_calls: [{}] })).toContain('must have a `function`')
  })
})
