import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readTrainingFile } from '../../../src/fine-tuning/rows.ts'
import { collect, failureOf } from '../datasets/helpers.ts'

function fileOf(content: string | Uint8Array): string {
  const path = join(mkdtempSync(join(tmpdir(), 'anneal-rows-')), 'chats.jsonl')
  writeFileSync(path, content)
  return path
}

const chat = (answer: string) => ({
  messages: [
    { role: 'user', content: 'q' },
    { role: 'assistant', content: answer },
  ],
})

describe('readTrainingFile', () => {
  it('ends lines at line feeds alone: the line separators of Unicode may stand in a text', async () => {
    const lines = ['a\u2028b\u2029c', 'd'].map((answer) => JSON.stringify(chat(answer)))
    const rows = await collect(readTrainingFile(fileOf(`\uFEFF${lines.join('\r\n')}\r\n`)))
    expect(rows.map(({ row }) => row)).toMatchObject([chat('a\u2028b\u2029c'), chat('d')])
  })

  it('names the line of a chat that a run would leave out', async () => {
    const question = { role: 'user', content: 'q' }
    const answer = { role: 'assistant', content: 'a' }
    const late = { role: 'system', content: 's' }
    const wrong: [object[], RegExp][] = [
      [[question], /last question has no answer/],
      [[question, question, answer], /message 2 has the role user/],
      [[question, late, answer], /message 2 has the unknown role "system"/],
      [[{ role: 'user', content: '\ud800' }, answer], /half of a surrogate pair/],
    ]
    for (const [messages, reason] of wrong) {
      const lines = [chat('a'), { messages }].map((line) => JSON.stringify(line)).join('\n')
      const error = await failureOf(collect(readTrainingFile(fileOf(lines))))
      expect(error).toMatchObject({
        code: 'invalid_training_file',
        message: expect.stringMatching(/^Line 2 of the file/),
      })
      expect(error.message).toMatch(reason)
    }
    expect((await failureOf(collect(readTrainingFile(fileOf('\n'))))).message).toContain('has no examples')
  })

  it('says in its own words that a file is not UTF-8', async () => {
    const error = await failureOf(collect(readTrainingFile(fileOf(Uint8Array.of(0x7b, 0xff, 0x7d)))))
    expect(error).toMatchObject({ code: 'invalid_training_file', param: 'file' })
  })
})
