import { describe, expect, it } from 'vitest'
import { adaptConversation } from '../../../engine/text/chat-input.ts'
import type { TemplateMessage } from '../../../engine/text/chat-template.ts'
import { encodePrompt } from '../../../engine/text/encode-prompt.ts'

const TOOL = { type: 'function' as const, function: { name: 'f', parameters: { type: 'object' } } }
const MESSAGES: TemplateMessage[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'hi' },
  {
    role: 'assistant',
    content: null,
    tool_calls: [{ id: 'c1', type: 'function', function: { name: 'f', arguments: '{"a":1}' } }],
  },
  { role: 'tool', content: 'found', tool_call_id: 'c1' },
]
const knowing = (knows: boolean) => ({ knows: { tools: knows, toolCalls: knows, toolRole: knows } })

describe('adaptConversation', () => {
  it('gives a template that knows tools what it reads: arguments as objects, no null content', () => {
    const { messages, options } = adaptConversation(MESSAGES, [TOOL], knowing(true))
    expect(options.tools).toEqual([TOOL])
    expect(messages[0]!.content).toBe('Be brief.')
    expect(messages[2]).toMatchObject({
      content: '',
      tool_calls: [{ id: 'c1', function: { name: 'f', arguments: { a: 1 } } }],
    })
    expect(messages[3]).toMatchObject({ role: 'tool', tool_call_id: 'c1' })
  })

  it('writes tools, calls and results out for a template that knows none', () => {
    const { messages, options } = adaptConversation(MESSAGES, [TOOL], knowing(false))
    expect(options).toEqual({})
    expect(messages[0]!.content).toMatch(/^Be brief\.\n\nThese tools can be called.*\n\{"name":"f"/)
    expect(messages[2]).toEqual({ role: 'assistant', content: '{"name":"f","arguments":{"a":1}}' })
    expect(messages[3]).toEqual({ role: 'user', content: 'found' })
    const [system] = adaptConversation(MESSAGES.slice(1, 2), [TOOL], knowing(false)).messages
    expect(system!.role).toBe('system')
  })

  it('writes the results of tools that were called together as one question, as training does', () => {
    const more = { role: 'tool', content: 'more', tool_call_id: 'c2' }
    const { messages } = adaptConversation([...MESSAGES, more], [], knowing(false))
    expect(messages.slice(3)).toEqual([{ role: 'user', content: 'found\nmore' }])
    expect(adaptConversation([...MESSAGES, more], [], knowing(true)).messages).toHaveLength(5)
  })
})

describe('encodePrompt', () => {
  const asked: number[] = []
  const tokenizer = {
    tokenId: () => undefined,
    encode: (text: string) => {
      asked.push(text.length)
      return new Int32Array(text.length)
    },
  }

  it('refuses a text that is too long by its beginning', () => {
    const options = { addSpecialTokens: false, maxTokens: 10, param: 'prompt' }
    expect(() => encodePrompt(tokenizer, 'x'.repeat(1e6), options)).toThrow(
      expect.objectContaining({ kind: 'too_large', code: 'context_length_exceeded', param: 'prompt' }),
    )
    expect(asked).toEqual([80])
    expect(encodePrompt(tokenizer, 'x'.repeat(50), options)).toHaveLength(50)
  })
})
