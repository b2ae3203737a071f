import { EngineError } from '../errors.ts'
import type { ChatTemplate, TemplateMessage } from './chat-template.ts'
import type { Conversation, Message } from './conversation.ts'
import { isJsonObject } from './tokenizer-files.ts'

export type ChatConversation = Extract<Conversation, { kind: 'chat' }>

/** A conversation in the form that its template reads. */
export interface TemplateConversation {
  /** The system message, when there is one. */
  system: TemplateMessage[]
  /** The turns, one for each message of the conversation. */
  turns: TemplateMessage[]
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
    turns: conversation.messages.map((message) => toTemplateMessage(message, template)),
    tools: shown,
  }
}

function toTemplateMessage(message: Message, template: ChatTemplate): TemplateMessage {
  switch (message.role) {
    case 'observation':
      return { role: template.knows.toolRole ? 'tool' : 'user', content: message.content }
    case 'function': {
      const calls = template.knows.toolCalls ? parseToolCalls(message.content) : undefined
      return calls === undefined
        ? { role: 'assistant', content: message.content }
        : { role: 'assistant', content: '', tool_calls: calls }
    }
    default:
      return { role: message.role, content: message.content }
  }
}

/** The calls that a function message holds as JSON: one {name, arguments} or a list; undefined when it is something else. */
function parseToolCalls(content: string): TemplateMessage['tool_calls'] | undefined {
  const value = parseJson(content)
  const calls: NonNullable<TemplateMessage['tool_calls']> = []
  for (const call of Array.isArray(value) ? value : [value]) {
    if (!isJsonObject(call) || typeof call.name !== 'string') return undefined
    const given = call.arguments ?? {}
    const parsed = typeof given === 'string' ? (parseJson(given) ?? given) : given
    calls.push({ type: 'function', function: { name: call.name, arguments: parsed } })
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

function describeTools(tools: readonly unknown[]): string {
  if (tools.length === 0) return ''
  const lines = tools.map((tool) => JSON.stringify(isJsonObject(tool) ? (tool.function ?? tool) : tool))
  return ['These tools can be called, each by a JSON object with its name and arguments:', ...lines].join(
    '\n',
  )
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
