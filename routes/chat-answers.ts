import { endedEarly, type Identity, rest, toUsage } from './generation.ts'
import type { ChatEvent, ShownLogprob, ShownToken } from './generation-services.ts'
import type { ChatCompletion, ChatCompletionChunk } from './schemas/chat.ts'

type Events = AsyncIterator<ChatEvent>
type Choice = ChatCompletion['choices'][number]
type Delta = ChatCompletionChunk['choices'][number]['delta']
type Logprobs = NonNullable<Choice['logprobs']>

const showToken = ({ token, logprob, bytes }: ShownToken) => ({ token, logprob, bytes })

function showLogprobs(entries: readonly ShownLogprob[] | undefined): Logprobs | null {
  if (entries === undefined) return null
  const content = entries.map((entry) => ({
    ...showToken(entry),
    top_logprobs: entry.top.map(showToken),
  }))
  return { content, refusal: null }
}

/** The whole answer, once all of its choices have ended. */
export async function collect(events: Events, identity: Identity, count: number): Promise<ChatCompletion> {
  const choices = Array.from({ length: count }, (_, index) => emptyChoice(index))
  for await (const event of rest(events)) {
    if (event.type === 'usage') {
      for (const choice of choices) finish(choice)
      return { ...identity, object: 'chat.completion', choices, usage: toUsage(event.usage) }
    }
    if (event.type !== 'start') add(choices[event.choice]!, event)
  }
  throw endedEarly()
}

function emptyChoice(index: number): Choice {
  const message = { role: 'assistant' as const, content: '', refusal: null }
  return { index, message, logprobs: null, finish_reason: 'stop' }
}

function add(choice: Choice, event: Exclude<ChatEvent, { type: 'start' | 'usage' }>): void {
  const { message } = choice
  if (event.type === 'finish') choice.finish_reason = event.reason
  else if (event.type === 'text') message.content += event.text
  else if (event.type === 'reasoning') {
    message.reasoning_content = (message.reasoning_content ?? '') + event.text
  } else if (event.type === 'tool_call') {
    const call = { id: event.id, type: 'function' as const, function: { name: event.name, arguments: '' } }
    message.tool_calls = [...(message.tool_calls ?? []), call]
  } else message.tool_calls![event.index]!.function.arguments += event.text
  if (!('logprobs' in event) || event.logprobs === undefined) return
  const { content } = showLogprobs(event.logprobs)!
  choice.logprobs = { content: [...(choice.logprobs?.content ?? []), ...content!], refusal: null }
}

/** OpenAI's content is null where an answer is nothing but calls. */
function finish({ message }: Choice): void {
  if (message.tool_calls && message.content === '') message.content = null
}

/** The chunks of an answer: each choice's role first, its parts, its finish reason, and the usage where asked for. */
export async function* chunksOf(
  events: Events,
  identity: Identity,
  count: number,
  includeUsage: boolean,
): AsyncGenerator<ChatCompletionChunk> {
  const base = { ...identity, object: 'chat.completion.chunk' as const }
  const chunk = (
    index: number,
    delta: Delta,
    more: { logprobs?: Logprobs | null; finish_reason?: Choice['finish_reason'] } = {},
  ): ChatCompletionChunk => ({
    ...base,
    choices: [{ index, delta, logprobs: null, finish_reason: null, ...more }],
    ...(includeUsage ? { usage: null } : {}),
  })
  for (let index = 0; index < count; index++) yield chunk(index, { role: 'assistant', content: '' })
  for await (const event of rest(events)) {
    if (event.type === 'usage') {
      if (includeUsage) yield { ...base, choices: [], usage: toUsage(event.usage) }
      return
    }
    if (event.type === 'start') continue
    if (event.type === 'finish') yield chunk(event.choice, {}, { finish_reason: event.reason })
    else yield chunk(event.choice, deltaOf(event), { logprobs: showLogprobs(event.logprobs) })
  }
  throw endedEarly()
}

function deltaOf(event: Exclude<ChatEvent, { type: 'start' | 'usage' | 'finish' }>): Delta {
  switch (event.type) {
    case 'text':
      return { content: event.text }
    case 'reasoning':
      return { reasoning_content: event.text }
    case 'tool_call': {
      const { index, id, name } = event
      return { tool_calls: [{ index, id, type: 'function', function: { name, arguments: '' } }] }
    }
    case 'tool_arguments':
      return { tool_calls: [{ index: event.index, function: { arguments: event.text } }] }
  }
}
