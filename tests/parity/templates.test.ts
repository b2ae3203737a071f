import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { resolveChatTemplate } from '../../engine/text/chat-template.ts'
import type { Message } from '../../engine/text/conversation.ts'
import { encodeConversation } from '../../engine/text/encode.ts'
import { argumentsOf, readCallMessage } from '../../engine/text/format-calls.ts'
import { FORMATS } from '../../engine/text/formats.ts'
import { encodePieces } from '../../engine/text/pieces.ts'
import { type TemplateFields, templateChoice } from '../../engine/text/template-choice.ts'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'
import { splitLastTurn } from '../../engine/text/turns.ts'

/** What LLaMA-Factory made of the same conversations: templates-reference.py writes it. */
interface Reference {
  day: [number, number, number]
  settings: Record<string, TemplateFields & { mask_history?: boolean; cutoff_len?: number }>
  cases: Record<string, { messages: Message[]; system?: string; tools?: string }>
  expected: Record<string, [string | null, string, string] | ['error', string]>
}

const FOLDER = join(import.meta.dirname, 'templates')
const reference = JSON.parse(readFileSync(join(FOLDER, 'reference.json'), 'utf8')) as Reference
const tokenizers = {
  bytes: loadTokenizer(join(FOLDER, 'bytes')),
  space: loadTokenizer(join(FOLDER, 'space')),
}

const digest = (...lists: Int32Array[]) =>
  createHash('sha256')
    .update(JSON.stringify(lists.map((list) => [...list])))
    .digest('hex')
    .slice(0, 12)

/** Digests of the example, of the prompt that chat makes of all but the last answer, and of the question with its answer. */
function encode(key: string): string[] {
  const [tokenizerName, name, setting, caseName] = key.split(' ') as [
    keyof typeof tokenizers,
    string,
    string,
    string,
  ]
  const tokenizer = tokenizers[tokenizerName]
  const fields = reference.settings[setting]!
  const template = resolveChatTemplate(tokenizer, templateChoice({ ...fields, template: name }))
  const conversation = { kind: 'chat' as const, ...reference.cases[caseName]! }
  const { inputIds, labels } = encodeConversation(conversation, tokenizer, {
    template,
    cutoffLength: fields.cutoff_len ?? 100_000,
    maskHistory: fields.mask_history ?? false,
  })
  const { prompt, response } = splitLastTurn(conversation, template)
  return [
    digest(inputIds, labels),
    digest(encodePieces(chatPrompt(conversation, template, FORMATS[name]!.thoughts), tokenizer)),
    digest(encodePieces(prompt, tokenizer), encodePieces(response, tokenizer)),
  ]
}

function chatPrompt(
  { messages, system, tools }: Reference['cases'][string],
  template: ReturnType<typeof resolveChatTemplate>,
  thoughts: readonly [string, string] = ['<think>\n', '\n</think>\n\n'],
) {
  const asked = messages.slice(0, -1).map(({ role, content }) => {
    if (role === 'observation') return { role: 'tool', content }
    if (role !== 'function') return { role, content }
    const { before, calls } = readCallMessage(content, thoughts)
    const written = calls.map(({ name, arguments: given }) => ({
      type: 'function' as const,
      function: { name, arguments: argumentsOf(given) },
    }))
    return { role: 'assistant', content: before, tool_calls: written }
  })
  const head = system === undefined ? [] : [{ role: 'system', content: system }]
  const listed = tools === undefined ? undefined : (JSON.parse(tools) as unknown[])
  return template.pieces([...head, ...asked], { addGenerationPrompt: true, tools: listed })
}

/**
 * Where it is meant to differ: numbers of tools that came over HTTP are JavaScript's (1.0 is 1); with mask_history, the end
 * token behind an answer that is not learned is not learned either.
 */
function differs(key: string, index: number): boolean {
  const [, name, setting, caseName] = key.split(' ')
  if (caseName === 'numbers') return index === 1
  return index === 0 && FORMATS[name!]!.learnsEnd === true && setting!.startsWith('last')
}

describe("LLaMA-Factory's templates", () => {
  beforeAll(() => {
    const [year, month, day] = reference.day
    vi.useFakeTimers({ toFake: ['Date'], now: new Date(year, month - 1, day, 12) })
  })
  afterAll(() => void vi.useRealTimers())

  const keysOf = (name: string) => Object.keys(reference.expected).filter((key) => key.split(' ')[1] === name)

  it('are all compared', () => {
    expect(Object.keys(FORMATS).filter((name) => keysOf(name).length === 0)).toEqual([])
  })

  it.each(Object.keys(FORMATS))('%s gives its token ids and labels, in training as in chat', (name) => {
    const differing = keysOf(name).flatMap((key) => {
      const expected = reference.expected[key]!
      if (expected[0] === 'error') {
        expect(() => encode(key), key).toThrow()
        return []
      }
      const found = encode(key)
      return found.flatMap((one, index) =>
        one === expected[index] || expected[index] === null || differs(key, index)
          ? []
          : [`${key} #${index}`],
      )
    })
    expect(differing).toEqual([])
  })
})
