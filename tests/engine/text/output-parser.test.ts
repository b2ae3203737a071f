import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { OutputParser, type OutputPart } from '../../../engine/text/output-parser.ts'
import { reasoningStart } from '../../../engine/text/reasoning.ts'
import { ACTIONS, GLM, newCallId, toolFormat } from '../../../engine/text/tools.ts'

const HERMES = toolFormat('<tool_call>')
const MISTRAL = toolFormat('[TOOL_CALLS]')
const LLAMA3 = toolFormat('<|python_tag|>')
const JSON_CALLS = toolFormat('')
const XML = toolFormat('<tool_call><function=')
const GLM_XML = toolFormat('<tool_call><arg_key>')
const names = ['f', 'g']

/** What an answer comes to when it arrives in the given pieces. */
function parse(pieces: string[], parser: OutputParser) {
  const parts: OutputPart[] = [...pieces.flatMap((piece) => parser.push(piece)), ...parser.end()]
  const result = { text: '', reasoning: '', calls: [] as { name: string; arguments: string }[] }
  for (const part of parts) {
    if (part.type === 'text') result.text += part.text
    else if (part.type === 'reasoning') result.reasoning += part.text
    else if (part.type === 'tool_call') result.calls.push({ name: part.name, arguments: '' })
    else result.calls[part.index]!.arguments += part.text
  }
  return result
}

const parserFor = (format = HERMES, parallel = true) =>
  new OutputParser({ reasoning: 'none', tools: { format, names, parallel } })

const CASES: [string, typeof HERMES, string, Partial<ReturnType<typeof parse>>][] = [
  [
    'a Hermes call behind text',
    HERMES,
    'Let me see.\n<tool_call>\n{"name": "f", "arguments": {"a": "}\\"{", "b": [1, {}]}}\n</tool_call>',
    { text: 'Let me see.\n', calls: [{ name: 'f', arguments: '{"a": "}\\"{", "b": [1, {}]}' }] },
  ],
  [
    'two Hermes calls',
    HERMES,
    '<tool_call>{"name":"f","arguments":{}}</tool_call>\n<tool_call>{"name":"g","arguments":{"x":1}}</tool_call>',
    {
      text: '',
      calls: [
        { name: 'f', arguments: '{}' },
        { name: 'g', arguments: '{"x":1}' },
      ],
    },
  ],
  [
    'arguments before the name',
    HERMES,
    '<tool_call>{"arguments": {"x": 1}, "name": "g"}</tool_call>',
    { calls: [{ name: 'g', arguments: '{"x":1}' }] },
  ],
  [
    'arguments as a string',
    HERMES,
    '<tool_call>{"name": "g", "arguments": "{\\"x\\": 1}"}</tool_call>',
    { calls: [{ name: 'g', arguments: '{"x": 1}' }] },
  ],
  [
    'Action lines behind text, two of them',
    ACTIONS,
    'I look:Action: f\nAction Input: {"a": "}"}\nAction: g\nAction Input: {"x": {"y": 1}}',
    {
      text: 'I look:',
      calls: [
        { name: 'f', arguments: '{"a": "}"}' },
        { name: 'g', arguments: '{"x": {"y": 1}}' },
      ],
    },
  ],
  ['an Action that is none', ACTIONS, 'Action: act now!', { text: 'Action: act now!', calls: [] }],
  [
    "GLM-4's name with arguments below",
    GLM,
    'f\n{"a": [1]}',
    { text: '', calls: [{ name: 'f', arguments: '{"a": [1]}' }] },
  ],
  ['an answer that begins like a tool of GLM-4', GLM, 'f is a letter', { text: 'f is a letter', calls: [] }],
  [
    "Qwen3-Coder's elements",
    XML,
    'So.<tool_call>\n<function=f>\n<parameter=a>\ntwo\nlines\n</parameter>\n<parameter=n>\n[1, 2]\n</parameter>\n</function>\n</tool_call>',
    { text: 'So.', calls: [{ name: 'f', arguments: '{"a":"two\\nlines","n":[1,2]}' }] },
  ],
  [
    "GLM-4.5's elements, the last call cut off by the answer's end",
    GLM_XML,
    '<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>x</arg_value>\n</tool_call>\n<tool_call>g\n<arg_key>b</arg_key>\n<arg_value>2</arg_value>',
    {
      calls: [
        { name: 'f', arguments: '{"a":"x"}' },
        { name: 'g', arguments: '{"b":2}' },
      ],
    },
  ],
  [
    'JSON between the marks of elements, as a grammar enforces it',
    XML,
    '<tool_call>\n{"name": "g", "arguments": {"x": 1}}\n</tool_call>',
    { text: '', calls: [{ name: 'g', arguments: '{"x": 1}' }] },
  ],
  [
    "Mistral's list",
    MISTRAL,
    '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
    {
      text: '',
      calls: [
        { name: 'f', arguments: '{"a": 1}' },
        { name: 'g', arguments: '{}' },
      ],
    },
  ],
  [
    "Llama 3's bare JSON",
    LLAMA3,
    '<|python_tag|>{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}',
    {
      text: '',
      calls: [
        { name: 'f', arguments: '{"a": 1}' },
        { name: 'g', arguments: '{}' },
      ],
    },
  ],
  [
    'a JSON list of calls',
    JSON_CALLS,
    '[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {"y": null}}]',
    {
      text: '',
      calls: [
        { name: 'f', arguments: '{}' },
        { name: 'g', arguments: '{"y": null}' },
      ],
    },
  ],
  [
    'JSON that is an answer',
    JSON_CALLS,
    '{"name": "Bob", "age": 3}',
    { text: '{"name": "Bob", "age": 3}', calls: [] },
  ],
  [
    'JSON with another first key',
    JSON_CALLS,
    '{"city": "Oakdale", "name": "f"}',
    { text: '{"city": "Oakdale", "name": "f"}', calls: [] },
  ],
  ['text in braces', JSON_CALLS, '{not json', { text: '{not json', calls: [] }],
  [
    'plain text',
    HERMES,
    'Two < three, <tool, and done.',
    { text: 'Two < three, <tool, and done.', calls: [] },
  ],
]

describe('OutputParser', () => {
  it.each(CASES)('reads %s, however it is cut', (_, format, answer, expected) => {
    expect(parse([answer], parserFor(format))).toMatchObject(expected)
    expect(parse([...answer], parserFor(format))).toMatchObject(expected)
    fc.assert(
      fc.property(fc.integer({ min: 0, max: answer.length }), fc.integer({ min: 1, max: 9 }), (at, size) => {
        const pieces = [answer.slice(0, at), answer.slice(at, at + size), answer.slice(at + size)]
        expect(parse(pieces, parserFor(format))).toMatchObject(expected)
      }),
      { seed: 3, numRuns: 60 },
    )
  })

  it('hands arguments on as they come', () => {
    const parser = parserFor()
    parser.push('<tool_call>{"name": "f", "arguments": {"city": "Oak')
    expect(parser.push('da')).toEqual([{ type: 'tool_arguments', index: 0, text: 'da' }])
  })

  it('takes one call only where several are not allowed', () => {
    const answer =
      '<tool_call>{"name":"f","arguments":{}}</tool_call><tool_call>{"name":"g","arguments":{}}</tool_call>'
    expect(parse([answer], parserFor(HERMES, false)).calls).toEqual([{ name: 'f', arguments: '{}' }])
  })

  it('parts reasoning from the answer, opened by the model or by the template', () => {
    const think = (reasoning: 'thinking' | 'undecided') => new OutputParser({ reasoning })
    const expected = { reasoning: 'because\n', text: 'So it is.' }
    const answer = 'because\n</think>\n\nSo it is.'
    expect(parse([...`<think>\n${answer}`], think('undecided'))).toMatchObject(expected)
    expect(parse([...`\n${answer}`], think('thinking'))).toMatchObject(expected)
    expect(parse([...'No thought <think>'], think('undecided'))).toMatchObject({
      reasoning: '',
      text: 'No thought <think>',
    })
    expect(parse(['<think>cut off'], think('undecided'))).toMatchObject({ reasoning: 'cut off', text: '' })
  })

  it('finds calls behind the reasoning and none within it', () => {
    const call = '<tool_call>{"name":"f","arguments":{}}</tool_call>'
    const parser = new OutputParser({
      reasoning: 'thinking',
      tools: { format: HERMES, names, parallel: true },
    })
    expect(parse([`maybe ${call}`, `</think>\n${call}`], parser)).toEqual({
      reasoning: `maybe ${call}`,
      text: '',
      calls: [{ name: 'f', arguments: '{}' }],
    })
  })
})

describe('reasoningStart', () => {
  it('follows the template and the prompt that it made', () => {
    expect(reasoningStart(false, 'x')).toBe('none')
    expect(reasoningStart(true, 'assistant\n<think>\n')).toBe('thinking')
    expect(reasoningStart(true, 'assistant\n<think>\n\n</think>\n\n')).toBe('none')
    expect(reasoningStart(true, 'assistant\n')).toBe('undecided')
  })
})

describe('newCallId', () => {
  it("has the form that Mistral's templates insist on, and OpenAI's elsewhere", () => {
    expect(newCallId(MISTRAL)).toMatch(/^[A-Za-z0-9]{9}$/)
    expect(newCallId(HERMES)).toMatch(/^call_[A-Za-z0-9]{24}$/)
  })
})
