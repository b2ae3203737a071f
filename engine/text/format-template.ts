import { EngineError } from '../errors.ts'
import type { RenderOptions, TemplateMessage } from './chat-template.ts'
import type { Message } from './conversation.ts'
import { type Format, type Slots, THINK } from './format.ts'
import { argumentsOf, type CallMessage, readCallMessage, readTools } from './format-calls.ts'
import { emptyThought, hasThought, type Thinking, withoutThought } from './format-thoughts.ts'
import { type Piece, pieceText } from './pieces.ts'
import { pythonJson } from './python-json.ts'
import type { TemplateChoice } from './template-choice.ts'
import type { ChatConversation } from './template-messages.ts'
import type { ModelTokenizer } from './tokenizer.ts'
import { TOOL_WORDS, type ToolWords } from './tool-words.ts'
import type { Turn } from './turns.ts'

/** A message with its calls read. */
type Spoken = Pick<Message, 'role' | 'content'> & { calls?: CallMessage }

/** Tools as a row has them, JSON text, or a request, a list. */
type GivenTools = string | readonly unknown[] | undefined

/** Between results of tools that were called together, whatever the format, as LLaMA-Factory joins them. */
const BETWEEN_RESULTS = '\n</tool_response>\n<tool_response>\n'

/**
 * A chat template made of a format, by the rules of LLaMA-Factory's data/template.py (Template, Llama2Template,
 * ReasoningTemplate): each message becomes pieces that are tokenized apart.
 */
export class FormatTemplate {
  readonly #format: Format
  readonly #tokens: ModelTokenizer['tokens']
  readonly #words: ToolWords
  readonly #thinking: Thinking

  constructor(format: Format, tokenizer: Pick<ModelTokenizer, 'tokens'>, choice: TemplateChoice) {
    this.#format = withChoice(format, choice)
    this.#tokens = tokenizer.tokens
    this.#words = toolWords(this.#format.tools ?? 'default')
    this.#thinking = {
      enabled: choice.enableThinking ?? true,
      preserved: choice.preserveThinking ?? false,
    }
  }

  get toolFormat(): ToolWords['format'] {
    return this.#words.format
  }

  /** A conversation's turns, as training reads them (encode_multiturn): thoughts stay in all answers unless `onlyLast` is learned. */
  turns(conversation: ChatConversation, options: TurnOptions = {}): Turn[] {
    const thinking = this.#thinkingOf(options.variables)
    const drops = options.onlyLast === true && !thinking.preserved
    const last = conversation.messages.length - 1
    const messages = conversation.messages.map((message, index) =>
      this.#spoken(message, !thinking.enabled || (drops && index < last)),
    )
    const parts = this.#parts(messages, conversation.system, conversation.tools)
    return pairs(parts).map(({ prompt, response }, index) => {
      const answer = messages[2 * index + 1]!
      if (drops && 2 * index + 1 < last) return { prompt, response }
      return this.#withThought(prompt, response, answer.content, thinking)
    })
  }

  /** Everything before the last answer, and that answer (encode_oneturn): earlier answers lose their thoughts. */
  lastTurn(conversation: ChatConversation, options: TurnOptions = {}): Turn {
    const thinking = this.#thinkingOf(options.variables)
    const last = conversation.messages.length - 1
    const messages = conversation.messages.map((message, index) =>
      this.#spoken(message, index < last ? !thinking.preserved : !thinking.enabled),
    )
    const parts = this.#parts(messages, conversation.system, conversation.tools)
    const prompt = parts.slice(0, -1).flat()
    return this.#withThought(prompt, parts.at(-1)!, messages.at(-1)!.content, thinking)
  }

  /** What chat gives the model (encode_oneturn with an empty answer). @throws EngineError `chat_template_failed`. */
  pieces(given: readonly TemplateMessage[], options: RenderOptions = {}): Piece[] {
    const thinking = this.#thinkingOf(options.variables)
    const [first, ...others] = given
    const hasSystem = first?.role === 'system'
    const messages = this.#read(hasSystem ? others : given, thinking)
    const system = hasSystem ? (first.content ?? '') : undefined
    const pieces = this.#parts(messages, system, options.tools).flat()
    if (!options.addGenerationPrompt || !this.#thinks || thinking.enabled) return pieces
    return [...pieces, emptyThought(this.#format)]
  }

  render(messages: readonly TemplateMessage[], options?: RenderOptions): string {
    return pieceText(this.pieces(messages, options))
  }

  get #thinks(): boolean {
    return this.#format.thoughts !== undefined
  }

  #thinkingOf(variables: RenderOptions['variables']): Thinking {
    const { enable_thinking: enabled, preserve_thinking: preserved } = variables ?? {}
    return {
      enabled: typeof enabled === 'boolean' ? enabled : this.#thinking.enabled,
      preserved: typeof preserved === 'boolean' ? preserved : this.#thinking.preserved,
    }
  }

  /** An answer without a thought gets an empty one: learned where the model thinks, given where it shall not. */
  #withThought(prompt: Piece[], response: Piece[], content: string, { enabled }: Thinking): Turn {
    if (!this.#thinks || hasThought(content, this.#format)) return { prompt, response }
    const empty = emptyThought(this.#format)
    return enabled ? { prompt, response: [empty, ...response] } : { prompt: [...prompt, empty], response }
  }

  /** A row's message; `bare` takes the thoughts out of an answer. */
  #spoken({ role, content, more = [] }: Message, bare: boolean): Spoken {
    if (role === 'observation') return { role, content: [content, ...more].join(BETWEEN_RESULTS) }
    const answers = role === 'assistant' || role === 'function'
    const text = answers && bare && this.#thinks ? withoutThought(content, this.#format) : content
    if (role !== 'function') return { role, content: text }
    const inFirst = this.#format.systemPlace === 'inFirst'
    const words = this.#format.thoughts ?? THINK
    return { role, content: text, calls: readCallMessage(text, inFirst ? undefined : words) }
  }

  /** A request's messages; results that follow each other are one. */
  #read(given: readonly TemplateMessage[], thinking: Thinking): Spoken[] {
    const messages: Spoken[] = []
    for (const { role, content, tool_calls: calls, reasoning_content: reasoning } of given) {
      const last = messages.at(-1)
      if (role === 'tool') {
        if (last?.role === 'observation') last.content += BETWEEN_RESULTS + (content ?? '')
        else messages.push({ role: 'observation', content: content ?? '' })
      } else if (role === 'assistant') {
        const text = this.#history(content ?? '', reasoning, thinking)
        const read = calls?.map((call) => ({
          name: call.function.name,
          arguments: argumentsOf(call.function.arguments ?? {}),
        }))
        if (read === undefined || read.length === 0) messages.push({ role, content: text })
        else messages.push({ role: 'function', content: text, calls: { before: text, calls: read } })
      } else if (role === 'user') messages.push({ role, content: content ?? '' })
      else throw misplaced(role)
    }
    return messages
  }

  /** An earlier answer of a chat, with its thought where thoughts are kept. */
  #history(content: string, reasoning: string | undefined, { preserved }: Thinking): string {
    if (!this.#thinks) return content
    if (!preserved) return withoutThought(content, this.#format)
    const [open, close] = this.#format.thoughts!
    return reasoning && !hasThought(content, this.#format) ? open + reasoning + close + content : content
  }

  /** The pieces of each message; before the first stand the prefix, the system text and the tools. */
  #parts(messages: readonly Spoken[], given: string | undefined, tools: GivenTools): Piece[][] {
    const { prefix = [], system: systemSlots = '{content}', systemPlace, defaultSystem } = this.#format
    const system = (given || defaultSystem || '') + this.#describe(tools)
    const inFirst = systemPlace === 'inFirst'
    const own = system === '' || inFirst ? [] : this.#fill(systemSlots, system)
    const head = [...this.#fill(prefix, ''), ...own]
    const merged = inFirst && system !== '' ? pieceText(this.#fill(systemSlots, system)) : ''
    if (messages.length === 0) return [head]
    return messages.map((message, index) => {
      if (index > 0) return this.#message(message)
      const opened = message.role === 'user' ? { ...message, content: merged + message.content } : message
      return [...head, ...this.#message(opened)]
    })
  }

  #describe(given: GivenTools): string {
    const tools = readTools(given)
    const { rawTools } = this.#format
    if (tools.length === 0) return ''
    if (rawTools === undefined) return this.#words.describe(tools, today())
    return rawTools[0] + (typeof given === 'string' ? given : pythonJson(tools)) + rawTools[1]
  }

  #message({ role, content, calls }: Spoken): Piece[] {
    const { user = '{content}', learnsEnd, observation = user } = this.#format
    const { assistant = learnsEnd ? '{content}' : ['{content}', '{eos}'], calls: callSlots } = this.#format
    if (role === 'user') return this.#fill(user, content)
    if (role === 'observation') return this.#fill(observation, content)
    if (calls === undefined) return this.#fill(assistant, content)
    return this.#fill(callSlots ?? assistant, calls.before + this.#words.write(calls.calls))
  }

  #token(name: 'bos' | 'eos'): string | undefined {
    const { replacesEnd, stops = [] } = this.#format
    return name === 'eos' && replacesEnd ? stops[0] : this.#tokens[name]
  }

  /** Slots with the content in its place. */
  #fill(slots: Slots, content: string): Piece[] {
    return (typeof slots === 'string' ? [slots] : slots).flatMap((slot): Piece[] => {
      const token = /^\{(?:(bos|eos)|token:(.+))\}$/.exec(slot)
      if (token === null) return [slot.replace('{content}', () => content)]
      const [, named, literal] = token
      const text = literal ?? this.#token(named as 'bos' | 'eos')
      return text === undefined ? [] : [{ token: text }]
    })
  }
}

export interface TurnOptions {
  variables?: Readonly<Record<string, unknown>> | undefined
  /** The last answer alone is learned (mask_history). */
  onlyLast?: boolean | undefined
}

/** The format with what a config says besides its name. */
function withChoice(format: Format, { toolFormat, defaultSystem }: TemplateChoice): Format {
  const system = defaultSystem === undefined ? {} : { defaultSystem }
  if (toolFormat === undefined) return { ...format, ...system }
  const { rawTools: _, ...rest } = format
  const calls: Slots = format.learnsEnd ? '{content}' : ['{content}', '{eos}']
  return { ...rest, ...system, tools: toolFormat, calls }
}

/** @throws EngineError `unknown_tool_format`. */
function toolWords(name: string): ToolWords {
  if (Object.hasOwn(TOOL_WORDS, name)) return TOOL_WORDS[name]!
  throw new EngineError(
    'invalid',
    'unknown_tool_format',
    `Tool format ${name} does not exist. Known: ${Object.keys(TOOL_WORDS).join(', ')}.`,
    { param: 'tool_format' },
  )
}

function pairs(parts: readonly Piece[][]): Turn[] {
  const turns: Turn[] = []
  for (let at = 0; at + 1 < parts.length; at += 2) {
    turns.push({ prompt: parts[at]!, response: parts[at + 1]! })
  }
  return turns
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

/** The day as Llama 3's system text has it, 02 Jan 2026. */
function today(): string {
  const now = new Date()
  return `${String(now.getDate()).padStart(2, '0')} ${MONTHS[now.getMonth()]} ${now.getFullYear()}`
}

const misplaced = (role: string) =>
  new EngineError(
    'invalid',
    'chat_template_failed',
    role === 'system'
      ? 'This template shows a system message at the beginning alone.'
      : `This template has no message of the role ${role}.`,
    { param: 'messages' },
  )
