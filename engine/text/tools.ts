import { randomInt } from 'node:crypto'

/** A function that a model may call, in OpenAI's form. */
export interface ToolDefinition {
  type: 'function'
  function: {
    name: string
    description?: string
    /** A JSON Schema of the arguments; undefined takes none. */
    parameters?: Readonly<Record<string, unknown>>
    /** Calls must fit the schema. */
    strict?: boolean
  }
}

export type ToolChoice = 'auto' | 'none' | 'required' | { name: string }

/** How a model writes its calls. */
export interface ToolFormat {
  readonly name:
    | 'hermes'
    | 'mistral'
    | 'llama3'
    | 'json'
    | 'actions'
    | 'glm'
    | 'xml_parameters'
    | 'xml_arguments'
  /** Stands before a call; where it is empty, a call is an answer that begins with JSON. */
  readonly opening: string
  /** Stands after a call. */
  readonly closing: string
  /** Whether one opening introduces a JSON list of calls. */
  readonly list: boolean
  readonly argumentsKey: 'arguments' | 'parameters'
  /** A call that is no JSON object: what stands before the name and between the name and the JSON of the arguments. */
  readonly plainCall?: { readonly beforeName: string; readonly beforeArguments: string }
  /** Each argument is an element of its own, whose value is text or JSON; a call that is enforced is JSON nevertheless. */
  readonly elements?: 'parameter' | 'arg_key'
  /** Tokens that may be marked special and must be seen nevertheless. */
  readonly markers: readonly string[]
}

export const HERMES: ToolFormat = {
  name: 'hermes',
  opening: '<tool_call>',
  closing: '</tool_call>',
  list: false,
  argumentsKey: 'arguments',
  markers: ['<tool_call>', '</tool_call>'],
}
export const MISTRAL: ToolFormat = {
  name: 'mistral',
  opening: '[TOOL_CALLS]',
  closing: '',
  list: true,
  argumentsKey: 'arguments',
  markers: ['[TOOL_CALLS]'],
}
export const LLAMA3: ToolFormat = {
  name: 'llama3',
  opening: '',
  closing: '',
  list: false,
  argumentsKey: 'parameters',
  markers: ['<|python_tag|>'],
}
/** Lines `Action: name` and `Action Input: {…}`, what LLaMA-Factory teaches where a model has no form of its own. */
export const ACTIONS: ToolFormat = {
  name: 'actions',
  opening: 'Action:',
  closing: '',
  list: false,
  argumentsKey: 'arguments',
  plainCall: { beforeName: ' ', beforeArguments: '\nAction Input: ' },
  markers: [],
}
/** GLM-4's answer that is a call: the name on a line, the arguments behind it. */
export const GLM: ToolFormat = {
  name: 'glm',
  opening: '',
  closing: '',
  list: false,
  argumentsKey: 'arguments',
  plainCall: { beforeName: '', beforeArguments: '\n' },
  markers: [],
}
/** Qwen3-Coder's and Qwen3.5's <function=…> with a <parameter=…> for each argument. */
export const XML_PARAMETERS: ToolFormat = { ...HERMES, name: 'xml_parameters', elements: 'parameter' }
/** GLM-4.5's name with an <arg_key> and an <arg_value> for each argument. */
export const XML_ARGUMENTS: ToolFormat = { ...HERMES, name: 'xml_arguments', elements: 'arg_key' }
/** What training teaches where a template knows no tools (see describeTools): the call's JSON is the whole answer. */
const JSON_CALLS: ToolFormat = {
  name: 'json',
  opening: '',
  closing: '',
  list: false,
  argumentsKey: 'arguments',
  markers: [],
}

/** The format that a chat template asks its model for, told by the marks that it writes. */
export function toolFormat(templateSource: string): ToolFormat {
  if (templateSource.includes('<tool_call>')) {
    if (templateSource.includes('<function=')) return XML_PARAMETERS
    return templateSource.includes('<arg_key>') ? XML_ARGUMENTS : HERMES
  }
  if (templateSource.includes('[TOOL_CALLS]')) return MISTRAL
  if (/<\|python_tag\|>|"parameters":/.test(templateSource)) return LLAMA3
  return JSON_CALLS
}

const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'

/** A fresh id of a call. Mistral's templates insist on nine letters or digits. */
export function newCallId(format: ToolFormat): string {
  const length = format.name === 'mistral' ? 9 : 24
  const id = Array.from({ length }, () => LETTERS[randomInt(LETTERS.length)]).join('')
  return format.name === 'mistral' ? id : `call_${id}`
}

/** Lists tools for a template that cannot show them: part of the system message, in training as in chat. */
export function describeTools(tools: readonly unknown[]): string {
  if (tools.length === 0) return ''
  const lines = tools.map((tool) => JSON.stringify((tool as { function?: unknown } | null)?.function ?? tool))
  return ['These tools can be called, each by a JSON object with its name and arguments:', ...lines].join(
    '\n',
  )
}
