import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { HumanMessage } from '@langchain/core/messages'
import { tool as langchainTool } from '@langchain/core/tools'
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai'
import { embed, generateObject, generateText, streamText, tool } from 'ai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { MODEL, type RealServer, startRealServer } from './server.ts'

const ANSWER = 'Mia is a singer from Millbrook. She sings songs.'
const person = z.object({ name: z.enum(['Mia', 'Tom']), singer: z.boolean() })

let server: RealServer

beforeAll(async () => {
  server = await startRealServer()
})
afterAll(() => server.close())

describe('The AI SDK', () => {
  const provider = () =>
    createOpenAICompatible({
      name: 'anneal',
      baseURL: server.baseURL,
      includeUsage: true,
      supportsStructuredOutputs: true,
    })
  const ask = () => ({ model: provider()(MODEL), prompt: 'Who is Mia?', temperature: 0, maxRetries: 0 })

  it('streams text with usage', async () => {
    const result = streamText(ask())
    let text = ''
    for await (const piece of result.textStream) text += piece
    expect(text).toBe(ANSWER)
    expect(await result.finishReason).toBe('stop')
    expect((await result.usage).outputTokens).toBeGreaterThan(5)
  })

  it('generates objects of a schema', async () => {
    const { object } = await generateObject({ ...ask(), schema: person, maxOutputTokens: 60 })
    expect(person.safeParse(object).success).toBe(true)
  })

  it('executes required tools, also when it streams', async () => {
    const calls: unknown[] = []
    const tools = {
      look_up: tool({
        description: 'Looks a person up.',
        inputSchema: person,
        execute: async (input) => {
          calls.push(input)
          return 'a singer'
        },
      }),
    }
    const asked = { ...ask(), tools, toolChoice: 'required' as const, maxOutputTokens: 100 }
    const whole = await generateText(asked)
    expect(whole.finishReason).toBe('tool-calls')
    expect(whole.toolCalls[0]).toMatchObject({ toolName: 'look_up' })
    const streamed = streamText(asked)
    await streamed.consumeStream()
    expect((await streamed.toolResults)[0]).toMatchObject({ output: 'a singer' })
    expect(calls.length).toBeGreaterThanOrEqual(2)
    for (const input of calls) expect(person.safeParse(input).success).toBe(true)
  })

  it('embeds a text as a vector of length 1', async () => {
    const { embedding } = await embed({ model: provider().embeddingModel(MODEL), value: 'Mia' })
    expect(Math.hypot(...embedding)).toBeCloseTo(1, 5)
  })
})

describe('LangChain', () => {
  const chat = (more: object = {}) =>
    new ChatOpenAI({
      model: MODEL,
      apiKey: 'unused',
      temperature: 0,
      maxRetries: 0,
      configuration: { baseURL: server.baseURL },
      ...more,
    })

  it('answers and streams', async () => {
    expect((await chat().invoke([new HumanMessage('Who is Mia?')])).content).toBe(ANSWER)
    let text = ''
    for await (const chunk of await chat().stream('Who is Mia?')) text += chunk.content
    expect(text).toBe(ANSWER)
  })

  it('calls a bound tool', async () => {
    const lookUp = langchainTool(async () => 'a singer', {
      name: 'look_up',
      description: 'Looks a person up.',
      schema: person,
    })
    const answer = await chat({ maxTokens: 100 })
      .bindTools([lookUp], { tool_choice: 'look_up' })
      .invoke('Who is Mia?')
    expect(answer.tool_calls).toHaveLength(1)
    expect(answer.tool_calls![0]).toMatchObject({ name: 'look_up', type: 'tool_call' })
    expect(person.safeParse(answer.tool_calls![0]!.args).success).toBe(true)
  })

  it('gets structured output', async () => {
    const structured = chat({ maxTokens: 100 }).withStructuredOutput(person, { method: 'jsonSchema' })
    expect(person.safeParse(await structured.invoke('Who is Mia?')).success).toBe(true)
  })

  it("embeds documents as vectors of the model's width", async () => {
    const embeddings = new OpenAIEmbeddings({
      model: MODEL,
      apiKey: 'unused',
      configuration: { baseURL: server.baseURL },
    })
    const vectors = await embeddings.embedDocuments(['Mia', 'Tom'])
    expect(vectors).toHaveLength(2)
    expect(vectors[0]).toHaveLength(256)
  })
})
