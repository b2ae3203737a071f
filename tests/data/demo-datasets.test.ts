import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'

const text = z.string().min(1)
const read = (name: string) =>
  readFileSync(fileURLToPath(new URL(`../../data/${name}`, import.meta.url)), 'utf8')
const info = JSON.parse(read('dataset_info.json'))

describe('the demo datasets', () => {
  it('anneal_identity has alpaca rows and one identity', () => {
    const row = z.strictObject({ instruction: text, input: z.string(), output: text })
    const rows = z
      .array(row)
      .min(60)
      .parse(JSON.parse(read('anneal_identity.json')))
    expect(rows.find(({ instruction }) => instruction === 'Who are you?')?.output).toContain('Juniper')
    expect(info.anneal_identity).toEqual({ file_name: 'anneal_identity.json' })
  })

  it('lighthouse_qa has query and response', () => {
    z.array(z.strictObject({ query: text, response: text }))
      .min(50)
      .parse(JSON.parse(read('lighthouse_qa.json')))
    expect(info.lighthouse_qa.columns).toEqual({ prompt: 'query', response: 'response' })
  })

  it('greetings_sharegpt has conversations that alternate and end with an answer', () => {
    const turn = z.strictObject({ from: z.enum(['human', 'gpt']), value: text })
    const rows = z
      .array(z.strictObject({ conversations: z.array(turn).min(2), system: text.optional() }))
      .parse(JSON.parse(read('greetings_sharegpt.json')))
    for (const { conversations } of rows) {
      expect(conversations.map(({ from }) => from)).toEqual(
        conversations.map((_, index) => (index % 2 === 0 ? 'human' : 'gpt')),
      )
      expect(conversations.at(-1)?.from).toBe('gpt')
    }
    expect(info.greetings_sharegpt.formatting).toBe('sharegpt')
  })

  it('small_world has one text per line', () => {
    const lines = read('small_world.jsonl').trimEnd().split('\n')
    expect(lines.length).toBeGreaterThanOrEqual(20)
    for (const line of lines) z.strictObject({ text }).parse(JSON.parse(line))
    expect(info.small_world.columns).toEqual({ prompt: 'text' })
  })
})
