import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { adoptTemplate } from '../../../engine/export/carried-template.ts'
import { ggufTokenizer } from '../../../engine/export/gguf-tokenizer.ts'
import { readTurnForm } from '../../../engine/export/turn-form.ts'
import { resolveChatTemplate } from '../../../engine/text/chat-template.ts'
import { FORMATS } from '../../../engine/text/formats.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'anneal-template-'))
  cpSync(ANNEAL_TINY, folder, { recursive: true })
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

describe('adoptTemplate', () => {
  it.each([...Object.keys(FORMATS), 'empty'])(
    "makes the template %s the folder's own, as its form is",
    (name) => {
      adoptTemplate(folder, name)
      const tokenizer = loadTokenizer(folder)
      expect(readTurnForm(resolveChatTemplate(tokenizer))).toEqual(
        readTurnForm(resolveChatTemplate(tokenizer, name)),
      )
    },
  )

  it('leaves a template that writes conversations in the same form, as it may show tools', () => {
    adoptTemplate(folder, 'chatml')
    expect(existsSync(join(folder, 'chat_template.jinja'))).toBe(false)
  })

  it("adds the tokens that end the template's answers to the model's", () => {
    writeFileSync(join(folder, 'generation_config.json'), '{"eos_token_id": 0, "top_p": 1.0}')
    const end = loadTokenizer(folder).tokenId('<|im_end|>')!
    const others = loadTokenizer(folder).eosTokenIds.filter((id) => id !== end)
    writeFileSync(join(folder, 'config.json'), '{}')
    const json = JSON.parse(readFileSync(join(folder, 'tokenizer_config.json'), 'utf8'))
    writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify({ ...json, eos_token: null }))
    rmSync(join(folder, 'special_tokens_map.json'), { force: true })
    adoptTemplate(folder, 'chatml')
    expect(loadTokenizer(folder).eosTokenIds).toEqual(expect.arrayContaining([...others, end]))
    expect(readFileSync(join(folder, 'generation_config.json'), 'utf8')).toContain('"top_p": 1.0')
  })

  it.each([undefined, null, 'auto', 'tokenizer'])('leaves the files alone where training used %s', (name) => {
    adoptTemplate(folder, name)
    expect(existsSync(join(folder, 'chat_template.jinja'))).toBe(false)
  })
})

describe('ggufTokenizer', () => {
  it('carries the template that training used', () => {
    const size = loadTokenizer(ANNEAL_TINY).vocabSize
    const source = (template?: string) => {
      const value = ggufTokenizer(ANNEAL_TINY, size, { template }).get('tokenizer.chat_template')
      return value && 'text' in value ? value.text : undefined
    }
    expect(source()).toBe(loadTokenizer(ANNEAL_TINY).chatTemplate)
    expect(source('phi')).toContain('<|user|>')
  })
})
