import { z } from 'zod'
import { EngineError } from '../../engine/errors.ts'
import { convertRow } from '../datasets/convert/index.ts'
import { RowError } from '../datasets/convert/row-error.ts'
import { OPENAI_TAGS, type RawEntry, readEntry } from '../datasets/entry.ts'
import { readLines } from '../datasets/readers/decode.ts'

/** Longest line of a training file, in bytes of UTF-16 as it is held. */
const MAX_LINE_CHARACTERS = 16 * 1024 * 1024

const content = z.union([
  z.string(),
  z
    .array(z.object({ type: z.literal('text'), text: z.string() }), 'only text parts can be learned')
    .transform((parts) => parts.map(({ text }) => text).join('')),
])
const message = z.object({
  role: z.enum(['system', 'developer', 'user', 'assistant', 'tool', 'function']),
  content: content.nullish(),
  weight: z.union([z.literal(0), z.literal(1)]).nullish(),
  tool_calls: z.array(z.unknown()).nullish(),
})
const messages = z.array(message).min(1)
const chat = z.looseObject({ messages, tools: z.array(z.unknown()).nullish() })
const input = z.object({ messages, tools: z.array(z.unknown()).nullish() })
const answer = z.array(message).length(1, 'must hold one assistant message')
const preference = z.union([
  z.looseObject({ input, preferred_output: answer, non_preferred_output: answer }),
  z.looseObject({ input, preferred_completion: answer, non_preferred_completion: answer }),
])

export type FineTuningMethod = 'supervised' | 'dpo'

/** A row of the dataset that a training file becomes, in the form that dataset_info.json calls openai. */
export type DatasetRow = Record<string, unknown>

/** The entry of dataset_info.json under which such rows are read. */
export function entryOf(method: FineTuningMethod, fileName: string): RawEntry {
  const answers = { chosen: 'chosen', rejected: 'rejected' }
  return {
    file_name: fileName,
    formatting: 'openai',
    columns: { messages: 'messages', tools: 'tools', ...(method === 'dpo' && answers) },
    tags: { ...OPENAI_TAGS },
    ...(method === 'dpo' && { ranking: true }),
  }
}

const ATTRIBUTES = {
  supervised: readEntry('file', entryOf('supervised', 'file')),
  dpo: readEntry('file', entryOf('dpo', 'file')),
}

/**
 * Reads a training file of OpenAI's form, line by line: chats (`messages`, with `weight` 0 on answers that are not to be
 * learned) or preferences (`input`, `preferred_output`, `non_preferred_output`; `…_completion` is understood too).
 *
 * @throws EngineError `invalid_training_file` with the first line that is something else, that a run would have to leave out, or that
 * mixes the two forms.
 */
export async function* readTrainingFile(
  path: string,
): AsyncGenerator<{ method: FineTuningMethod; row: DatasetRow }> {
  let number = 0
  let first: FineTuningMethod | undefined
  for await (const { text: line, number: at } of linesOf(path)) {
    number = at
    if (line.trim() === '') continue
    const read = readLine(line, number)
    first ??= read.method
    if (read.method !== first) throw invalid(number, `it is a ${read.method} example among ${first} ones`)
    yield read
  }
  if (first === undefined) throw noTrainingFile('it has no examples')
}

/** The lines of the file, in the words of this API where it is not UTF-8. */
async function* linesOf(path: string): ReturnType<typeof readLines> {
  try {
    yield* readLines(path)
  } catch (error) {
    if (!(error instanceof EngineError) || error.code !== 'malformed_row') throw error
    throw noTrainingFile('it is not UTF-8', error)
  }
}

function readLine(line: string, number: number): { method: FineTuningMethod; row: DatasetRow } {
  if (line.length > MAX_LINE_CHARACTERS)
    throw invalid(number, `it is longer than ${MAX_LINE_CHARACTERS} characters`)
  let value: unknown
  try {
    value = JSON.parse(line.replace(/^\uFEFF/, ''))
  } catch {
    throw invalid(number, 'it is not JSON')
  }
  const isPreference = typeof value === 'object' && value !== null && 'input' in value
  const read = isPreference
    ? { method: 'dpo' as const, row: preferenceRow(check(preference, value, number)) }
    : { method: 'supervised' as const, row: chatRow(check(chat, value, number)) }
  checkConversion(read, number)
  return read
}

/** Runs pass rows over that they cannot use; here each line is to count. */
function checkConversion(
  { method, row }: { method: FineTuningMethod; row: DatasetRow },
  number: number,
): void {
  try {
    convertRow(row, ATTRIBUTES[method], method === 'dpo' ? 'dpo' : 'sft')
  } catch (error) {
    if (error instanceof RowError) throw invalid(number, error.message)
    throw error
  }
}

function chatRow({ messages: list, tools }: z.infer<typeof chat>): DatasetRow {
  return { messages: list.map(normalise), tools: toolsText(tools) }
}

function preferenceRow(row: z.infer<typeof preference>): DatasetRow {
  const [chosen, rejected] =
    'preferred_output' in row
      ? [row.preferred_output, row.non_preferred_output]
      : [row.preferred_completion, row.non_preferred_completion]
  const { input: question } = row as { input: z.infer<typeof input> }
  return {
    messages: question.messages.map(normalise),
    tools: toolsText(question.tools),
    chosen: normalise((chosen as z.infer<typeof answer>)[0]!),
    rejected: normalise((rejected as z.infer<typeof answer>)[0]!),
  }
}

function normalise({ role, content: text, weight, tool_calls: calls }: z.infer<typeof message>): DatasetRow {
  return {
    role: role === 'developer' ? 'system' : role === 'function' ? 'tool' : role,
    content: text ?? '',
    ...(weight === 0 && { weight }),
    ...(calls && calls.length > 0 && { tool_calls: calls }),
  }
}

function toolsText(tools: unknown[] | null | undefined): string {
  return tools && tools.length > 0 ? JSON.stringify(tools) : ''
}

function check<T extends z.ZodType>(schema: T, value: unknown, number: number): z.infer<T> {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const place = issue?.path.join('.')
  throw invalid(number, `${place ? `${place}: ` : ''}${issue?.message ?? 'it has another form'}`)
}

function noTrainingFile(reason: string, cause?: unknown): EngineError {
  const message = `The file is no training file: ${reason}.`
  return new EngineError('invalid', 'invalid_training_file', message, { param: 'file', cause })
}

function invalid(line: number, reason: string): EngineError {
  return new EngineError(
    'invalid',
    'invalid_training_file',
    `Line ${line} of the file is no training example: ${reason}. A line is {"messages": [{"role", "content"}, …]}, or ` +
      '{"input": {"messages": […]}, "preferred_output": […], "non_preferred_output": […]}.',
    { param: 'file' },
  )
}
