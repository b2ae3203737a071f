import { cpSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import '../../fixed-seed.ts'
import { EngineError } from '../../../engine/errors.ts'
import { createDetokenizer } from '../../../engine/text/detokenizer.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { NEEDS_SHARED, SHARED, sharedMissing } from '../../shared.ts'
import { byteTokenizerFolder, writeModelFolder } from './byte-tokenizer.ts'

const smol = `${SHARED}models/SmolLM2-135M-Instruct`
const reference = `${SHARED}golden/SmolLM2-135M-Instruct/reference.json`

function failure(run: () => unknown): EngineError {
  try {
    run()
  } catch (error) {
    if (error instanceof EngineError) return error
    throw error
  }
  throw new Error('expected an EngineError')
}

describe('loadTokenizer', () => {
  it('encodes every string into tokens that decode to it', () => {
    const tokenizer = loadTokenizer(byteTokenizerFolder())
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text)
      }),
    )
  })

  it('decodes bytes of byte-fallback tokenizers to every character, U+FEFF among them', () => {
    const bytes = Array.from(
      { length: 256 },
      (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
    )
    const vocab = Object.fromEntries(['<unk>', ...bytes].map((token, id) => [token, id]))
    const folder = byteTokenizerFolder()
    const json = JSON.parse(readFileSync(join(folder, 'tokenizer.json'), 'utf8'))
    const model = { type: 'BPE', vocab, merges: [], unk_token: '<unk>', byte_fallback: true, fuse_unk: true }
    const decoder = { type: 'Sequence', decoders: [{ type: 'ByteFallback' }, { type: 'Fuse' }] }
    const changed = { ...json, added_tokens: [], pre_tokenizer: null, model, decoder }
    writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(changed))
    const tokenizer = loadTokenizer(folder)
    for (const text of ['\uFEFF', '\uFEFFa\uFEFF', '€\uFEFF']) {
      expect(tokenizer.decode([...Buffer.from(text)].map((byte) => byte + 1))).toBe(text)
    }
  })

  it('names the special tokens and hides them on request', () => {
    const tokenizer = loadTokenizer(byteTokenizerFolder())
    const ids = tokenizer.encode('<|im_start|>hi<|im_end|>')
    expect(tokenizer.decode(ids)).toBe('<|im_start|>hi<|im_end|>')
    expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe('hi')
    expect(tokenizer.tokens.eos).toBe('<|im_end|>')
    expect(tokenizer.specialTokenIds.has(tokenizer.eosTokenId!)).toBe(true)
    expect(tokenizer.vocabSize).toBe(258)
  })

  it('decodes nothing for no ids and for ids outside the vocabulary', () => {
    const tokenizer = loadTokenizer(byteTokenizerFolder())
    expect(tokenizer.decode([])).toBe('')
    expect(tokenizer.decode([999_999])).toBe('')
  })

  it('collects end-of-text ids from the tokenizer, config.json and generation_config.json', () => {
    const folder = writeModelFolder({
      'config.json': { eos_token_id: 7 },
      'generation_config.json': { eos_token_id: [257, 9] },
    })
    expect([...loadTokenizer(folder).eosTokenIds].sort()).toEqual([257, 7, 9])
  })

  it('pads with the end token where there is no pad token', () => {
    const tokenizer = loadTokenizer(writeModelFolder({}))
    expect(tokenizer.padTokenId).toBe(tokenizer.eosTokenId)
  })

  it('takes the template from chat_template.jinja before tokenizer_config.json', () => {
    const folder = writeModelFolder({ 'tokenizer_config.json': { chat_template: 'old' } })
    expect(loadTokenizer(folder).chatTemplate).toBe('old')
    writeFileSync(join(folder, 'chat_template.jinja'), 'new')
    expect(loadTokenizer(folder).chatTemplate).toBe('new')
  })

  it('takes the template named default of a list', () => {
    const chat_template = [
      { name: 'tool_use', template: 'tools' },
      { name: 'default', template: 'plain' },
    ]
    expect(loadTokenizer(writeModelFolder({ 'tokenizer_config.json': { chat_template } })).chatTemplate).toBe(
      'plain',
    )
  })

  it('reads special tokens written as objects and from special_tokens_map.json', () => {
    const folder = writeModelFolder({
      'tokenizer_config.json': { eos_token: { content: '<|im_end|>', special: true } },
      'special_tokens_map.json': { bos_token: { content: '<|im_start|>' } },
    })
    const tokenizer = loadTokenizer(folder)
    expect(tokenizer.tokens).toMatchObject({ bos: '<|im_start|>', eos: '<|im_end|>' })
    expect(tokenizer.bosTokenId).toBe(256)
  })

  it('names a missing tokenizer.json', () => {
    const folder = mkdtempSync(join(tmpdir(), 'anneal-tokenizer-'))
    const error = failure(() => loadTokenizer(folder))
    expect(error.code).toBe('missing_file')
    expect(error.message).toContain(join(folder, 'tokenizer.json'))
  })

  it('names a malformed file, whichever it is', () => {
    for (const [name, content] of [
      ['tokenizer.json', '{"model": '],
      ['tokenizer.json', '[]'],
      ['tokenizer.json', '{}'],
      ['tokenizer.json', '{"model": {"type": "Unheard"}}'],
      ['tokenizer_config.json', 'null'],
      ['special_tokens_map.json', '{'],
      ['generation_config.json', '7'],
    ] as const) {
      const folder = writeModelFolder({})
      writeFileSync(join(folder, name), content)
      const error = failure(() => loadTokenizer(folder))
      expect(error.code).toBe('malformed_file')
      expect(error.message).toContain(join(folder, name))
    }
  })

  it('throws nothing but EngineError on any JSON in tokenizer.json', () => {
    const folder = writeModelFolder({})
    fc.assert(
      fc.property(fc.json(), (json) => {
        writeFileSync(join(folder, 'tokenizer.json'), json)
        expect(failure(() => loadTokenizer(folder)).kind).toBe('invalid')
      }),
      { numRuns: 50 },
    )
  })
})

describe('createDetokenizer', () => {
  it('joins to the text and never emits half a character', () => {
    const tokenizer = loadTokenizer(byteTokenizerFolder())
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const detokenizer = createDetokenizer(tokenizer)
        const deltas = [...tokenizer.encode(text)].map((id) => detokenizer.push(id))
        for (const delta of deltas) if (!text.includes('\uFFFD')) expect(delta).not.toContain('\uFFFD')
        expect(deltas.join('') + detokenizer.flush()).toBe(text)
      }),
    )
  })

  it('gives out an unfinished character at the end only on flush', () => {
    const tokenizer = loadTokenizer(byteTokenizerFolder())
    const detokenizer = createDetokenizer(tokenizer)
    const [first, second] = tokenizer.encode('é')
    expect(detokenizer.push(first!)).toBe('')
    expect(detokenizer.flush()).toBe('\uFFFD')
    expect(detokenizer.push(first!) + detokenizer.push(second!)).toBe('é')
  })

  it('does not hold back endless bytes that are no text', () => {
    const tokenizer = loadTokenizer(byteTokenizerFolder())
    const detokenizer = createDetokenizer(tokenizer)
    const lead = tokenizer.encode('é')[0]!
    const deltas = Array.from({ length: 100 }, () => detokenizer.push(lead))
    expect(deltas.join('').length).toBeGreaterThan(60)
  })
})

describe.skipIf(sharedMissing())(`SmolLM2's tokenizer ${NEEDS_SHARED}`, () => {
  interface Reference {
    tokenizer: { text: string; ids: number[]; decoded: string }[]
    greedy: { tokens: number[]; text: string }
  }
  const cases = () => JSON.parse(readFileSync(reference, 'utf8')) as Reference

  it('gives the same ids and texts as transformers', () => {
    const tokenizer = loadTokenizer(smol)
    for (const { text, ids, decoded } of cases().tokenizer) {
      expect([...tokenizer.encode(text)]).toEqual(ids)
      expect(tokenizer.decode(ids)).toBe(decoded)
    }
  })

  it('streams the reference texts to the same characters', () => {
    const tokenizer = loadTokenizer(smol)
    const { greedy, tokenizer: texts } = cases()
    for (const { ids, decoded } of [...texts, { ids: greedy.tokens, decoded: greedy.text }]) {
      const detokenizer = createDetokenizer(tokenizer)
      expect(ids.map((id) => detokenizer.push(id)).join('') + detokenizer.flush()).toBe(decoded)
    }
  })

  it('knows its special tokens', () => {
    const tokenizer = loadTokenizer(smol)
    expect(tokenizer).toMatchObject({
      bosTokenId: 1,
      eosTokenId: 2,
      padTokenId: 2,
      eosTokenIds: [2],
      vocabSize: 49152,
    })
    expect(tokenizer.chatTemplate).toContain('<|im_start|>')
  })

  it('names a truncated tokenizer.json', () => {
    const folder = mkdtempSync(join(tmpdir(), 'anneal-tokenizer-'))
    mkdirSync(folder, { recursive: true })
    cpSync(join(smol, 'tokenizer_config.json'), join(folder, 'tokenizer_config.json'))
    writeFileSync(
      join(folder, 'tokenizer.json'),
      readFileSync(join(smol, 'tokenizer.json')).subarray(0, 100_000),
    )
    expect(failure(() => loadTokenizer(folder)).message).toContain('tokenizer.json is not valid JSON')
  })
})
