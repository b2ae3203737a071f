import { EngineError } from '../errors.ts'
import { pythonJson } from './python-json.ts'
import { isJsonObject, type JsonObject } from './tokenizer-files.ts'
import {
  ACTIONS,
  GLM,
  HERMES,
  LLAMA3,
  MISTRAL,
  type ToolFormat,
  XML_ARGUMENTS,
  XML_PARAMETERS,
} from './tools.ts'

/** A call of a tool; `arguments` as readJson reads them. */
export interface WrittenCall {
  name: string
  arguments: unknown
}

/**
 * How a named template lists tools and writes calls: LLaMA-Factory's tool formats (data/tool_utils.py at 0.9.5), word for
 * word, as models were trained on these words.
 */
export interface ToolWords {
  /** What stands behind the system text; `date` is today's as in 01 Jan 2026. */
  describe(tools: readonly JsonObject[], date: string): string
  /** The answer that makes these calls, without the marks of the template around it. */
  write(calls: readonly WrittenCall[]): string
  /** How the calls of such an answer are read. */
  readonly format: ToolFormat
}

/** A tool without the {"type": "function"} around it. */
function bare(tool: JsonObject): JsonObject {
  return tool.type === 'function' && isJsonObject(tool.function) ? tool.function : tool
}

/** A tool with it. */
function wrapped(tool: JsonObject): JsonObject {
  return tool.type === 'function' ? tool : { type: 'function', function: tool }
}

const lines = (texts: readonly string[]) => texts.map((text) => `\n${text}`).join('')

/** A string as it is, anything else as JSON. */
const plain = (value: unknown) => (typeof value === 'string' ? value : pythonJson(value))

const textOf = (value: unknown) => (value === undefined || value === null ? '' : plain(value))

function argumentsOf(call: WrittenCall): [string, unknown][] {
  if (isJsonObject(call.arguments)) return Object.entries(call.arguments)
  throw new EngineError(
    'invalid',
    'malformed_tool_call',
    `The arguments of ${call.name} must be a JSON object, not ${pythonJson(call.arguments)}.`,
  )
}

const named = (key: 'arguments' | 'parameters') => (call: WrittenCall) =>
  ({ name: call.name, [key]: call.arguments }) as JsonObject

const hermesCalls = (calls: readonly WrittenCall[]) =>
  calls.map((call) => `<tool_call>\n${pythonJson(named('arguments')(call))}\n</tool_call>`).join('\n')

const CALLABLE = 'You may call one or more functions to assist with the user query.'
const SIGNATURES = 'You are provided with function signatures within <tools></tools> XML tags:'
const HERMES_CALL =
  'For each function call, return a json object with function name and arguments within <tool_call></tool_call> ' +
  'XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'

/** What the default format says of one parameter. */
function describeParameter(name: string, value: unknown, required: boolean): string {
  const { type, description, enum: values, items } = isJsonObject(value) ? value : {}
  const choice =
    Array.isArray(values) && values.length > 0 ? `, should be one of [${values.map(textOf).join(', ')}]` : ''
  const item =
    isJsonObject(items) && Object.keys(items).length > 0
      ? `, where each item should be ${textOf(items.type)}`
      : ''
  return `  - ${name} (${pythonText(type)}${required ? ', required' : ''}): ${textOf(description)}${choice}${item}\n`
}

/** A type, which may be a list of types, as Python's format writes it. */
function pythonText(type: unknown): string {
  return Array.isArray(type) ? `[${type.map((one) => `'${textOf(one)}'`).join(', ')}]` : textOf(type)
}

function describeTool(tool: JsonObject): string {
  const parameters = isJsonObject(tool.parameters) ? tool.parameters : {}
  const properties = isJsonObject(parameters.properties) ? parameters.properties : {}
  const required: unknown[] = Array.isArray(parameters.required) ? parameters.required : []
  const args = Object.entries(properties).map(([name, value]) =>
    describeParameter(name, value, required.includes(name)),
  )
  return `> Tool Name: ${textOf(tool.name)}\nTool Description: ${textOf(tool.description)}\nTool Args:\n${args.join('')}\n`
}

/** Arguments that are one element each: `open(key)`, the value, `close`. */
const elements = (call: WrittenCall, open: (key: string) => string, close: string) =>
  argumentsOf(call)
    .map(([key, value]) => open(key) + plain(value) + close)
    .join('')

const DEFAULT: ToolWords = {
  describe: (tools) =>
    `You have access to the following tools:\n${tools.map((tool) => describeTool(bare(tool))).join('')}` +
    'Use the following format if using a tool:\n```\n' +
    `Action: tool name (one of [${tools.map((tool) => textOf(bare(tool).name)).join(', ')}])\n` +
    'Action Input: the input to the tool, in a JSON format representing the kwargs ' +
    '(e.g. ```{"input": "hello world", "num_beams": 5}```)\n```\n',
  write: (calls) =>
    calls.map((call) => `Action: ${call.name}\nAction Input: ${pythonJson(call.arguments)}`).join('\n'),
  format: ACTIONS,
}

const GLM4: ToolWords = {
  describe: (tools) =>
    '你是一个名为 ChatGLM 的人工智能助手。你是基于智谱 AI 公司训练的语言模型 GLM-4 模型开发的，' +
    '你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具' +
    tools
      .map(bare)
      .map(
        (tool) =>
          `\n\n## ${textOf(tool.name)}\n\n${pythonJson(tool, 4)}\n在调用上述函数时，请使用 Json 格式表示调用的参数。`,
      )
      .join(''),
  write: (calls) => {
    const [call, ...others] = calls
    if (call !== undefined && others.length === 0) return `${call.name}\n${pythonJson(call.arguments)}`
    const message = `GLM-4 calls one tool at a time, and this message calls ${calls.length}.`
    throw new EngineError('invalid', 'malformed_tool_call', message)
  },
  format: GLM,
}

const GLM4_MOE: ToolWords = {
  describe: (tools) =>
    `\n\n# Tools\n\n${CALLABLE}\n\n${SIGNATURES}\n<tools>${lines(tools.map((tool) => pythonJson(wrapped(tool))))}\n</tools>\n\n` +
    'For each function call, output the function name and arguments within the following XML format:' +
    '\n<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>\n<arg_value>{arg-value-1}</arg_value>' +
    '\n<arg_key>{arg-key-2}</arg_key>\n<arg_value>{arg-value-2}</arg_value>\n...\n</tool_call>\n',
  // The call is left open, as there: what ends it is the end of the answer.
  write: (calls) =>
    calls
      .map(
        (call) =>
          `\n<tool_call>${call.name}${elements(call, (key) => `\n<arg_key>${key}</arg_key>\n<arg_value>`, '</arg_value>')}`,
      )
      .join('\n'),
  format: XML_ARGUMENTS,
}

const LLAMA3_WORDS: ToolWords = {
  describe: (tools, date) =>
    `Cutting Knowledge Date: December 2023\nToday Date: ${date}\n\n` +
    'You have access to the following functions. To call a function, please respond with JSON for a function call. ' +
    'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}. ' +
    `Do not use variables.\n\n${tools.map((tool) => `${pythonJson(wrapped(tool), 4)}\n\n`).join('')}`,
  write: (calls) => {
    const written = calls.map(named('parameters'))
    return pythonJson(written.length === 1 ? written[0] : written)
  },
  format: LLAMA3,
}

const MISTRAL_WORDS: ToolWords = {
  describe: (tools) => `[AVAILABLE_TOOLS] ${pythonJson(tools.map(wrapped))}[/AVAILABLE_TOOLS]`,
  write: (calls) => pythonJson(calls.map(named('arguments'))),
  format: MISTRAL,
}

const QWEN: ToolWords = {
  describe: (tools) =>
    `\n\n# Tools\n\n${CALLABLE}\n\n${SIGNATURES}\n<tools>${lines(tools.map((tool) => pythonJson(wrapped(tool))))}\n</tools>\n\n${HERMES_CALL}`,
  write: hermesCalls,
  format: HERMES,
}

const QWEN3_5: ToolWords = {
  describe: (tools) =>
    `\n\n# Tools\n\nYou have access to the following functions:\n\n<tools>${lines(tools.map((tool) => pythonJson(bare(tool))))}\n</tools>\n\n` +
    'If you choose to call a function ONLY reply in the following format with NO suffix:\n\n' +
    '<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n' +
    '<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n' +
    '</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n' +
    '- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within ' +
    '<tool_call></tool_call> XML tags\n- Required parameters MUST be specified\n' +
    '- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after\n' +
    '- If there is no function call available, answer the question like normal with your current knowledge and do not ' +
    'tell the user about function calls\n</IMPORTANT>',
  write: (calls) =>
    calls
      .map(
        (call) =>
          `<tool_call>\n<function=${call.name}>${elements(call, (key) => `\n<parameter=${key}>\n`, '\n</parameter>')}\n</function>\n</tool_call>`,
      )
      .join('\n'),
  format: XML_PARAMETERS,
}

const LING: ToolWords = {
  describe: (tools) =>
    `# Tools\n\n${CALLABLE}\n\n${SIGNATURES}\n<tools>${lines(tools.map((tool) => pythonJson(wrapped(tool))))}\n</tools>\n\n` +
    `${HERMES_CALL}\ndetailed thinking off`,
  write: hermesCalls,
  format: HERMES,
}

/** LLaMA-Factory's tool formats by name, as `tool_format` takes them. */
export const TOOL_WORDS: Readonly<Record<string, ToolWords>> = {
  default: DEFAULT,
  glm4: GLM4,
  glm4_moe: GLM4_MOE,
  llama3: LLAMA3_WORDS,
  mistral: MISTRAL_WORDS,
  qwen: QWEN,
  qwen3_5: QWEN3_5,
  ling: LING,
}
