import type { ToolChoice, ToolDefinition, ToolFormat } from '../../text/tools.ts'
import { checkSchema } from './check-schema.ts'
import type { Schema } from './schema.ts'

/** What an answer must look like, in the form of xgrammar's structural tags. */
export type GrammarFormat =
  | { type: 'json_schema'; json_schema: Schema }
  | { type: 'tag'; begin: string; content: GrammarFormat; end: string }
  | { type: 'or'; elements: GrammarFormat[] }
  | {
      type: 'tags_with_separator'
      tags: TagFormat[]
      separator: string
      at_least_one: true
      stop_after_first: boolean
    }
  | { type: 'triggered_tags'; triggers: string[]; tags: TagFormat[] }

type TagFormat = Extract<GrammarFormat, { type: 'tag' }>

/** Any object at all. */
const OBJECT: Schema = { type: 'object', additionalProperties: true }

export interface GrammarRequest {
  tools: readonly ToolDefinition[]
  toolChoice: ToolChoice
  parallelToolCalls: boolean
  toolFormat: ToolFormat
  responseFormat?: { type: 'json_object' } | { type: 'json_schema'; schema: unknown; strict: boolean }
}

/**
 * The grammar that a request asks for, or undefined where the answer is free: JSON of a schema; one or more calls where
 * tools are required or one is named; well-formed calls where a tool is strict and the model may decide. Where both a
 * form is asked for and tools may be called, the answer is one or the other.
 * @throws EngineError invalid naming the schema at fault.
 */
export function grammarFormat(request: GrammarRequest): GrammarFormat | undefined {
  const response = responseGrammar(request)
  if (response === undefined || request.toolChoice !== 'auto' || request.tools.length === 0) {
    return toolGrammar(request) ?? response
  }
  // The library joins only forms with an end of their own: one call.
  return {
    type: 'or',
    elements: [response, ...callTags(request).map((tag) => marked(tag, request.toolFormat))],
  }
}

function responseGrammar({ responseFormat }: GrammarRequest): GrammarFormat | undefined {
  if (responseFormat === undefined) return undefined
  if (responseFormat.type === 'json_object') return { type: 'json_schema', json_schema: OBJECT }
  const schema = checkSchema(responseFormat.schema, 'response_format.json_schema.schema')
  return { type: 'json_schema', json_schema: schema }
}

function toolGrammar(request: GrammarRequest): GrammarFormat | undefined {
  const { tools, toolChoice, parallelToolCalls, toolFormat } = request
  if (tools.length === 0 || toolChoice === 'none') return undefined
  const isFree = !tools.some((tool) => tool.function.strict) || toolFormat.opening === ''
  if (toolChoice === 'auto' && isFree) return undefined
  const tags = callTags(request)
  if (toolChoice === 'auto') {
    const begun = tags.map((tag) => marked(tag, toolFormat))
    return { type: 'triggered_tags', triggers: [toolFormat.opening], tags: begun }
  }
  if (typeof toolChoice === 'object') {
    const named = tags[tools.findIndex((tool) => tool.function.name === toolChoice.name)]!
    return whole([named], toolFormat, false)
  }
  return whole(tags, toolFormat, parallelToolCalls)
}

/** One call of each tool, without marks. */
function callTags({ tools, toolFormat }: GrammarRequest): TagFormat[] {
  return tools.map(({ function: { name, parameters } }, index) => {
    const schema =
      parameters === undefined ? OBJECT : checkSchema(parameters, `tools.${index}.function.parameters`)
    return callTag(name, schema, toolFormat)
  })
}

/** {"name": …, "arguments": …} of one tool, or its name with the arguments behind it. */
function callTag(name: string, schema: Schema, { argumentsKey, plainCall }: ToolFormat): TagFormat {
  const content: GrammarFormat = { type: 'json_schema', json_schema: schema }
  if (plainCall !== undefined) {
    const begin = plainCall.beforeName + name + plainCall.beforeArguments
    return { type: 'tag', begin, content, end: '' }
  }
  const begin = `{"name": ${JSON.stringify(name)}, "${argumentsKey}": `
  return { type: 'tag', begin, content, end: '}' }
}

/** A call between its marks. */
function marked(tag: TagFormat, { opening, closing, list }: ToolFormat): TagFormat {
  if (list) return { ...tag, begin: `${opening}[${tag.begin}`, end: `${tag.end}]` }
  const line = closing === '' ? '' : '\n'
  return { ...tag, begin: `${opening}${line}${tag.begin}`, end: `${tag.end}${line}${closing}` }
}

/** An answer that is nothing but calls. */
function whole(tags: TagFormat[], format: ToolFormat, several: boolean): GrammarFormat {
  const calls = (each: TagFormat[], separator: string): GrammarFormat => ({
    type: 'tags_with_separator',
    tags: each,
    separator,
    at_least_one: true,
    stop_after_first: !several,
  })
  if (!format.list) {
    const separator = format.name === 'llama3' ? '; ' : '\n'
    return calls(
      tags.map((tag) => marked(tag, format)),
      separator,
    )
  }
  return { type: 'tag', begin: `${format.opening}[`, content: calls(tags, ', '), end: ']' }
}
