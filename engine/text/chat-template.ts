import { EngineError, messageOf } from '../errors.ts'
import type { Format } from './format.ts'
import { FormatTemplate } from './format-template.ts'
import { FORMATS } from './formats.ts'
import { parseTemplate, type Template } from './jinja.ts'
import type { Piece } from './pieces.ts'
import { THINK_CLOSE, THINK_OPEN } from './reasoning.ts'
import type { TemplateChoice } from './template-choice.ts'
import type { ModelTokenizer } from './tokenizer.ts'
import { type ToolFormat, toolFormat } from './tools.ts'

/** A message as chat templates read it: OpenAI's form, with tool-call arguments as an object. */
export interface TemplateMessage {
  role: string
  content: string | null
  tool_calls?: { id?: string; type: 'function'; function: { name: string; arguments: unknown } }[]
  tool_call_id?: string
  name?: string
  /** An earlier answer's reasoning; templates of reasoning models may show it. */
  reasoning_content?: string
}

export interface RenderOptions {
  /** End with the header of an assistant message, for a model to go on from. */
  addGenerationPrompt?: boolean
  /** Tools in OpenAI's form. */
  tools?: readonly unknown[]
  /** Extra variables for the template; only those in TEMPLATE_VARIABLES are let through. */
  variables?: Readonly<Record<string, unknown>>
}

/** The variables that a caller may set in a template, by the names that published templates use. */
const TEMPLATE_VARIABLES = [
  'enable_thinking',
  'thinking',
  'preserve_thinking',
  'clear_thinking',
  'reasoning_effort',
  'thinking_budget',
  'date_string',
] as const

/** The names that the config field `template` takes besides null. */
const TEMPLATE_NAMES: readonly string[] = ['auto', 'tokenizer', 'empty', ...Object.keys(FORMATS)]

export interface ChatTemplate {
  /** Where the template comes from: the model folder, one of the built-in ones, or the fallback of a folder without one. */
  readonly origin: 'tokenizer' | 'empty' | 'fallback' | 'named'
  /** What the user should know, when the model folder has no template. */
  readonly warning: string | undefined
  /** How its model writes calls of tools. */
  readonly toolFormat: ToolFormat
  /** Whether answers may begin with a thought between <think> and </think>. */
  readonly thinks: boolean
  /** The variable that says how much to think. */
  readonly effortVariable: 'reasoning_effort' | 'enable_thinking' | undefined
  /** LLaMA-Factory's rules, where the template is one of its formats. */
  readonly format: FormatTemplate | undefined
  /** Tokens that end an answer in this format, besides the model's own end tokens. */
  readonly endTokenIds: readonly number[]
  /**
   * Nothing in the format marks the end of an answer: in training the model's end token stands after the last one, and is what
   * is learned where another question follows.
   */
  readonly learnsEnd: boolean
  /** The token that ends a raw text, where it is not the model's end token. */
  readonly textEnd: string | undefined
  /** Whether the template shows a list of tools, assistant tool calls, and messages of the role `tool`. */
  readonly knows: { readonly tools: boolean; readonly toolCalls: boolean; readonly toolRole: boolean }
  /**
   * The conversation as text, special tokens included.
   * @throws EngineError `chat_template_failed` when the template raises or cannot run.
   */
  render(messages: readonly TemplateMessage[], options?: RenderOptions): string
  /** The same in pieces, which are tokenized apart. */
  pieces(messages: readonly TemplateMessage[], options?: RenderOptions): Piece[]
}

/** Contents only, one after another; each answer ends with the end token. */
const EMPTY = `{%- for message in messages -%}
{{ message.content }}{%- if message.role == 'assistant' -%}{{ eos_token }}{%- endif -%}
{%- endfor -%}`

/** For a base model without a template: roles in plain words, each answer ends with the end token. */
const FALLBACK = `{%- for message in messages -%}
{%- if message.role == 'assistant' -%}{{ 'Assistant: ' + message.content + eos_token + '\\n' }}
{%- elif message.role == 'system' -%}{{ 'System: ' + message.content + '\\n' }}
{%- else -%}{{ 'Human: ' + message.content + '\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}`

const FALLBACK_WARNING =
  'The model folder has no chat template: plain "Human: … / Assistant: …" lines are used. ' +
  'Set template to chatml or empty to choose another form.'

/**
 * The chat template that a config names: null, `auto` and `tokenizer` are the model folder's own (plain "Human:/Assistant:"
 * lines, with a warning, when it has none); `empty` is contents alone; the formats of model families (`llama3`, `qwen3`,
 * `default`, …) are LLaMA-Factory's.
 *
 * @throws EngineError `unknown_template`, or `malformed_chat_template` when the folder's template does not parse.
 */
export function resolveChatTemplate(
  tokenizer: ModelTokenizer,
  choice?: string | null | TemplateChoice,
): ChatTemplate {
  const chosen: TemplateChoice = typeof choice === 'object' && choice !== null ? choice : { name: choice }
  const name = chosen.name ?? 'auto'
  if (Object.hasOwn(FORMATS, name)) return named(FORMATS[name]!, tokenizer, chosen)
  if (chosen.toolFormat !== undefined) {
    const message = `tool_format belongs to a named template, such as qwen3; template is ${name}.`
    throw new EngineError('invalid', 'incompatible_options', message, { param: 'tool_format' })
  }
  switch (name) {
    case 'auto':
    case 'tokenizer':
      return tokenizer.chatTemplate === undefined
        ? compile(FALLBACK, 'fallback', tokenizer, chosen, FALLBACK_WARNING)
        : compile(tokenizer.chatTemplate, 'tokenizer', tokenizer, chosen)
    case 'empty':
      return compile(EMPTY, 'empty', tokenizer, chosen)
    default:
      throw new EngineError(
        'invalid',
        'unknown_template',
        `Template ${name} does not exist. Known: ${TEMPLATE_NAMES.join(', ')}; without one, the model's own is used.`,
        { param: 'template' },
      )
  }
}

/** One of LLaMA-Factory's formats. */
function named(format: Format, tokenizer: ModelTokenizer, choice: TemplateChoice): ChatTemplate {
  const template = new FormatTemplate(format, tokenizer, choice)
  const { stops = [], learnsEnd = false, replacesEnd } = format
  const textEnd = format.textEnd ?? (replacesEnd ? stops[0] : undefined)
  const { thoughts } = format
  return {
    origin: 'named',
    warning: undefined,
    toolFormat: template.toolFormat,
    thinks: thoughts !== undefined,
    effortVariable: thoughts === undefined ? undefined : 'enable_thinking',
    format: template,
    endTokenIds: stops.flatMap((stop) => endToken(tokenizer, stop)),
    learnsEnd,
    textEnd: textEnd !== undefined && tokenizer.tokenId(textEnd) !== undefined ? textEnd : undefined,
    knows: { tools: true, toolCalls: true, toolRole: true },
    render: (messages, options = {}) => template.render(messages, checkedOptions(options)),
    pieces: (messages, options = {}) => template.pieces(messages, checkedOptions(options)),
  }
}

function checkedOptions(options: RenderOptions): RenderOptions {
  return { ...options, variables: checkVariables(options.variables ?? {}) }
}

function compile(
  source: string,
  origin: ChatTemplate['origin'],
  tokenizer: ModelTokenizer,
  choice: TemplateChoice,
  warning?: string,
): ChatTemplate {
  let template: Template
  try {
    template = parseTemplate(source)
  } catch (cause) {
    throw new EngineError(
      'invalid',
      'malformed_chat_template',
      `The model's chat template does not parse: ${messageOf(cause)}`,
      { cause },
    )
  }
  const { bos = '', eos = '', pad = '', unk = '' } = tokenizer.tokens
  const tokens = { bos_token: bos, eos_token: eos, pad_token: pad, unk_token: unk }
  const given = chosenVariables(choice)
  const show = (messages: readonly TemplateMessage[], options: RenderOptions = {}) => {
    const variables = { ...given, ...options.variables }
    return render(template, tokens, withDefaultSystem(messages, choice), { ...options, variables })
  }
  return {
    origin,
    warning,
    toolFormat: toolFormat(source),
    thinks: source.includes(THINK_OPEN) || source.includes(THINK_CLOSE),
    effortVariable: effortVariable(source),
    format: undefined,
    endTokenIds: [],
    learnsEnd: false,
    textEnd: undefined,
    knows: {
      tools: /\btools\b/.test(source),
      toolCalls: /\btool_calls\b/.test(source),
      toolRole: /['"]tool['"]/.test(source),
    },
    render: show,
    pieces: (messages, options) => [show(messages, options)],
  }
}

function effortVariable(source: string): ChatTemplate['effortVariable'] {
  if (/\breasoning_effort\b/.test(source)) return 'reasoning_effort'
  return /\benable_thinking\b/.test(source) ? 'enable_thinking' : undefined
}

/** What a config sets, in the names that published templates use. */
function chosenVariables({ enableThinking, preserveThinking }: TemplateChoice): Record<string, unknown> {
  return {
    ...(enableThinking === undefined ? {} : { enable_thinking: enableThinking }),
    ...(preserveThinking === undefined ? {} : { preserve_thinking: preserveThinking }),
  }
}

function withDefaultSystem(
  messages: readonly TemplateMessage[],
  { defaultSystem }: TemplateChoice,
): readonly TemplateMessage[] {
  if (defaultSystem === undefined || messages[0]?.role === 'system') return messages
  return [{ role: 'system', content: defaultSystem }, ...messages]
}

/** The token of a stop mark; a model that splits the mark into several has none. */
function endToken(tokenizer: ModelTokenizer, mark: string): number[] {
  const ids = [...tokenizer.encode(mark)]
  return ids.length === 1 ? ids : []
}

function render(
  template: Template,
  tokens: Record<string, string>,
  messages: readonly TemplateMessage[],
  options: RenderOptions,
): string {
  const variables = checkVariables(options.variables ?? {})
  try {
    return template.render({
      ...tokens,
      ...variables,
      messages,
      tools: options.tools?.length ? options.tools : null,
      documents: null,
      add_generation_prompt: options.addGenerationPrompt ?? false,
    })
  } catch (cause) {
    throw new EngineError(
      'invalid',
      'chat_template_failed',
      `The chat template refuses these messages: ${messageOf(cause)}`,
      { param: 'messages', cause },
    )
  }
}

function checkVariables(variables: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const allowed: readonly string[] = TEMPLATE_VARIABLES
  for (const name of Object.keys(variables)) {
    if (!allowed.includes(name)) {
      throw new EngineError(
        'invalid',
        'unknown_template_variable',
        `${name} is no chat template variable that can be set. Known: ${allowed.join(', ')}.`,
        { param: `chat_template_kwargs.${name}` },
      )
    }
  }
  return { ...variables }
}
