import { EngineError } from '../errors.ts'
import type { ChatTemplate, TemplateMessage } from './chat-template.ts'
import type { Conversation, Message } from './conversation.ts'
import { isJsonObject } from './tokenizer-files.ts'
import { describeTools } from './tools.ts'

export type ChatConversation = Extract<Conversation, { kind: 'chat' }>

/** A conversation in the form that its template reads. */
export interface TemplateConversation {
  /** The system message, when there is one. */
  system: TemplateMessage[]
  /** What each message of the conversation is written as: one message, or one for each result of several tools. */
  turns: TemplateMessage[][]
  /** Tools in OpenAI's form, for a template that shows them. */
  tools: unknown[]
}

/**
 * Maps the five roles to what the template knows. `observation` becomes `tool`, or `user` where the template has no such
 * role; `function` becomes an assistant message with tool calls, or its JSON as plain content where the template has
 * none. Tools that a template cannot show are listed in the system message, so that they are not lost.
 */
export function toTemplateConversation(
  conversation: ChatConversation,
  template: ChatTemplate,
): TemplateConversation {
  const tools = parseTools(conversation.tools)
  const shown = template.knows.tools ? tools : []
  const listed = template.knows.tools ? [] : tools
  const system = [conversation.system ?? '', describeTools(listed)].filter((part) => part !== '').join('\n\n')
  return {
    system: system === '' ? [] : [{ role: 'system', content: system }],
    turns: toTemplateMessages(conversation.messages, template),
    tools: shown,
  }
}

function toTemplateMessages(messages: readonly Message[], template: ChatTemplate): TemplateMessage[][] {
  let calls = 0
  /** The calls that the last function message made. */
  let open = 0
  return messages.map(({ role, content, more = [] }): TemplateMessage[] => {
    if (role === 'observation') {
      const results = [content, ...more]
      if (!template.knows.toolRole) return [{ role: 'user', content: results.join('\n') }]
      const first = Math.max(1, calls - open + 1)
      return results.map((result, index) => {
        const id = callId(Math.min(first + index, Math.max(calls, first)))
        return { role: 'tool', content: result, tool_call_id: id }
      })
    }
    if (role !== 'function') return [{ role, content }]
    const parsed = template.knows.toolCalls ? parseToolCalls(content) : undefined
    if (parsed === undefined) return [{ role: 'assistant', content }]
    open = parsed.length
    const written = parsed.map((call) => ({ id: callId(++calls), type: 'function' as const, function: call }))
    return [{ role: 'assistant', content: '', tool_calls: written }]
  })
}

/** Datasets have no call ids, and some templates insist on nine letters or digits. */
function callId(number: number): string {
  return `call${String(number).padStart(5, '0')}`
}

/** The calls that a function message holds as JSON: one {name, arguments} or a list; undefined when it is something else. */
function parseToolCalls(content: string): { name: string; arguments: unknown }[] | undefined {
  const value = parseJson(content)
  const calls: { name: string; arguments: unknown }[] = []
  for (const call of Array.isArray(value) ? value : [value]) {
    if (!isJsonObject(call) || typeof call.name !== 'string') return undefined
    const given = call.arguments ?? {}
    const parsed = typeof given === 'string' ? (parseJson(given) ?? given) : given
    calls.push({ name: call.name, arguments: parsed })
  }
  return calls.length > 0 ? calls : undefined
}

function parseTools(text: string | undefined): unknown[] {
  if (text === undefined || text.trim() === '') return []
  const value = parseJson(text)
  if (value === undefined) {
    throw new EngineError(
      'invalid',
      'malformed_tools',
      `The tools are not valid JSON: ${text.slice(0, 80)}`,
      {
        param: 'tools',
      },
    )
  }
  const tools = Array.isArray(value) ? value : [value]
  return tools.map((tool) =>
    isJsonObject(tool) && tool.type === undefined ? { type: 'function', function: tool } : tool,
  )
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
