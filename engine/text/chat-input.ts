import type { ChatTemplate, RenderOptions, TemplateMessage } from './chat-template.ts'
import { describeTools, type ToolDefinition } from './tools.ts'

/**
 * A conversation in OpenAI's form as its template can show it. A template that knows no role `tool` gets results as
 * user messages, those of tools that were called together as one; one that knows no tool calls gets them as JSON, and tools that it cannot list stand in the system
 * message: the forms that training uses.
 */
export function adaptConversation(
  messages: readonly TemplateMessage[],
  tools: readonly ToolDefinition[],
  template: Pick<ChatTemplate, 'knows'>,
): { messages: TemplateMessage[]; options: Pick<RenderOptions, 'tools'> } {
  const asked = template.knows.toolRole ? messages : joinResults(messages)
  const adapted = asked.map((message) => adaptMessage(message, template))
  if (tools.length === 0) return { messages: adapted, options: {} }
  if (template.knows.tools) return { messages: adapted, options: { tools } }
  return { messages: withSystemText(adapted, describeTools(tools)), options: {} }
}

/** Results that follow each other as one message. */
function joinResults(messages: readonly TemplateMessage[]): TemplateMessage[] {
  const joined: TemplateMessage[] = []
  for (const message of messages) {
    const last = joined.at(-1)
    if (message.role !== 'tool' || last?.role !== 'tool') joined.push(message)
    else joined[joined.length - 1] = { ...last, content: `${last.content ?? ''}\n${message.content ?? ''}` }
  }
  return joined
}

function adaptMessage(message: TemplateMessage, { knows }: Pick<ChatTemplate, 'knows'>): TemplateMessage {
  const { role, tool_calls: calls } = message
  const content = message.content ?? ''
  if (role === 'tool' && !knows.toolRole) return { role: 'user', content }
  if (!calls || calls.length === 0) return { ...message, content }
  const parsed = calls.map((call) => ({
    ...call,
    function: { ...call.function, arguments: parseArguments(call.function.arguments) },
  }))
  if (knows.toolCalls) return { ...message, content, tool_calls: parsed }
  const written = parsed.map((call) => call.function)
  const json = JSON.stringify(written.length === 1 ? written[0] : written)
  return { role, content: content === '' ? json : `${content}\n${json}` }
}

/** Templates print arguments as JSON objects; clients send them as text. */
function parseArguments(given: unknown): unknown {
  if (typeof given !== 'string') return given ?? {}
  try {
    return JSON.parse(given)
  } catch {
    return given
  }
}

function withSystemText(messages: readonly TemplateMessage[], text: string): TemplateMessage[] {
  const [first, ...rest] = messages
  if (first?.role !== 'system') return [{ role: 'system', content: text }, ...messages]
  return [{ ...first, content: [first.content, text].filter(Boolean).join('\n\n') }, ...rest]
}
