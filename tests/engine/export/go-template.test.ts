import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { goTemplate } from '../../../engine/export/go-template.ts'
import { checkModelfile, modelfile, putsBos } from '../../../engine/export/modelfile.ts'
import { readTurnForm, renderForm, type TurnForm } from '../../../engine/export/turn-form.ts'
import { openModel } from '../../../engine/models/index.ts'
import { resolveChatTemplate } from '../../../engine/text/chat-template.ts'
import { FORMATS } from '../../../engine/text/formats.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'

const tokenizer = { ...loadTokenizer(ANNEAL_TINY), tokens: { bos: '<s>', eos: '</s>' } }
const formOf = (chatTemplate: string) => readTurnForm(resolveChatTemplate({ ...tokenizer, chatTemplate }))

/** Shows the system text before the last question, as Mistral's third version does. */
const SYSTEM_LAST = `{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}
{%- else %}{% set turns = messages %}{% endif %}{% for message in turns %}{% if message.role == 'user' %}[INST] {% if loop.last and system is defined %}
{{- system + '\\n\\n' }}{% endif %}{{ message.content }}[/INST]{% else %} {{ message.content }}{{ eos_token }}{% endif %}{% endfor %}`
const REFUSES_SYSTEM = `{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system') }}{% endif %}
{{- '<' + message.role + '>' + message.content + '</t>' }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}`

const FORM: TurnForm = {
  start: '<s>[U]',
  system: undefined,
  answer: '[A]',
  between: '</s>[U]',
  close: '</s>',
  prompt: '[A]',
  noThinking: '',
}

describe('readTurnForm', () => {
  it.each([...Object.keys(FORMATS), 'chatml', 'empty', null])('finds the form of the template %s', (name) => {
    const form = readTurnForm(resolveChatTemplate(tokenizer, name))
    expect(form.answer.trimEnd().startsWith(form.prompt.trimEnd())).toBe(true)
    expect(form.system).toBeDefined()
  })

  it("takes a default system text for a part of the conversation's beginning", () => {
    const form = readTurnForm(resolveChatTemplate(tokenizer, 'qwen'))
    const asked = [{ question: 'Q', answer: '' }]
    expect(renderForm(form, asked)).toContain('You are Qwen, created by Alibaba Cloud.')
    expect(renderForm(form, asked, 'Be brief.')).not.toContain('You are Qwen')
  })

  it('finds a system text that stands before the last question', () => {
    const { start, between, system } = formOf(SYSTEM_LAST)
    expect([start, between]).toEqual(['<s>[INST] ', '</s>[INST] '])
    expect(system).toEqual({ place: 'last', before: '', after: '\n\n' })
  })

  it('puts a system text before the first question where the template refuses one', () => {
    expect(formOf(REFUSES_SYSTEM).system).toEqual({ place: 'start', before: '<user>', after: '\n\n' })
  })

  it('finds what turns thinking off', () => {
    const form = formOf(`{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}
{%- if add_generation_prompt %}<assistant>{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}`)
    expect([form.prompt, form.noThinking]).toEqual(['<assistant>', '<think></think>'])
  })

  it.each([
    ['the last question alone', `{{ messages[-1].content }}`],
    ['a text twice', `{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}`],
    [
      'what a text changes around it',
      `{% for m in messages %}{{ m.content | length }} {{ m.content }};{% endfor %}`,
    ],
    [
      'a third turn as no other',
      `{% for m in messages %}{{ '!' if loop.index == 5 }}{{ m.content }};{% endfor %}`,
    ],
  ])('refuses a template that writes %s', (_, source) => {
    expect(() => formOf(source)).toThrowError(expect.objectContaining({ code: 'template_without_form' }))
  })
})

describe('goTemplate', () => {
  it('leaves out what the runtime puts in front', () => {
    expect(goTemplate(FORM, { bos: '<s>' })).toMatch(/^\[U\]/)
    expect(goTemplate(FORM)).toMatch(/^<s>\[U\]/)
  })

  it('tells the last question from the others only where they end differently', () => {
    expect(goTemplate(FORM)).not.toContain('if $last')
    expect(goTemplate({ ...FORM, answer: '[A] ' })).toContain('{{ if $last }}[A]{{ else }}[A] {{ end }}')
  })

  it("writes what would begin an action, end a block, or be dropped by Ollama's reader as a string", () => {
    const start = 'a {{ b """ c\u00a0d\u200be 漢\n\t'
    const expected = 'a {{ "{{" }} b {{ "\\"\\"\\"" }} c{{ "\\u00a0" }}d{{ "\\u200b" }}e 漢\n\t'
    expect(goTemplate({ ...FORM, start }).startsWith(expected)).toBe(true)
    expect(goTemplate({ ...FORM, start: '{' }).startsWith('{{ "{" }}{{ $asked')).toBe(true)
  })
})

describe('modelfile', () => {
  const options = { modelFolder: ANNEAL_TINY, ggufFile: 'model-F16.gguf', context: 512 }

  it("has the model's end tokens as stops, its context, and no penalty that it knows nothing of", () => {
    const lines = modelfile(options).split('\n')
    expect(lines[0]).toBe('FROM ./model-F16.gguf')
    const parameters = lines.filter((line) => line.startsWith('PARAMETER '))
    expect(parameters).toEqual([
      'PARAMETER stop "<|im_end|>"',
      'PARAMETER num_ctx 512',
      'PARAMETER repeat_penalty 1',
    ])
  })

  it('has the sampling that the authors recommend', () => {
    const folder = mkdtempSync(join(tmpdir(), 'anneal-modelfile-'))
    cpSync(ANNEAL_TINY, folder, { recursive: true })
    const recommended = { temperature: 0.6, top_k: -1, top_p: 0.95, repetition_penalty: 1.05 }
    writeFileSync(join(folder, 'generation_config.json'), JSON.stringify(recommended))
    const lines = modelfile({ ...options, modelFolder: folder })
      .trimEnd()
      .split('\n')
    expect(lines.slice(-4)).toEqual([
      'PARAMETER temperature 0.6',
      'PARAMETER top_k 0',
      'PARAMETER top_p 0.95',
      'PARAMETER repeat_penalty 1.05',
    ])
    rmSync(folder, { recursive: true })
  })

  it('asks for no more context than 8192 tokens, and says what the model has', () => {
    const text = modelfile({ ...options, context: 131_072 })
    expect(text).toContain('PARAMETER num_ctx 8192\n')
    expect(text).toContain('# The model reads up to 131072 tokens')
  })

  it('is refused for a gemma3 with windows where Ollama has none', () => {
    const model = openModel(ANNEAL_TINY)
    model.weights.close()
    const [layer] = model.config.layerAttention
    const withWindows = (kinds: string) => {
      const layerAttention = [...kinds].map((kind) => ({ ...layer!, window: kind === 's' ? 64 : null }))
      return { ...model, config: { ...model.config, modelType: 'gemma3_text', layers: 6, layerAttention } }
    }
    expect(() => checkModelfile(withWindows('sssssf'))).not.toThrow()
    expect(() => checkModelfile(withWindows('sfsfsf'))).toThrowError(
      expect.objectContaining({ code: 'ollama_unsupported' }),
    )
  })

  it('leaves bos to Ollama only where the tokenizer adds it and the template has it', () => {
    const folder = mkdtempSync(join(tmpdir(), 'anneal-modelfile-'))
    cpSync(ANNEAL_TINY, folder, { recursive: true })
    const json = JSON.parse(readFileSync(join(folder, 'tokenizer_config.json'), 'utf8'))
    const bos = '<|im_end|>' // any token of its vocabulary
    const changed = { ...json, bos_token: bos, add_bos_token: true }
    writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify(changed))
    const puts = [putsBos(folder, 'llama3'), putsBos(folder, 'phi'), putsBos(ANNEAL_TINY, 'llama3')]
    expect(puts).toEqual([true, false, false])
    expect(modelfile({ ...options, modelFolder: folder, template: 'llama3' })).not.toContain(`"""${bos}`)
    rmSync(folder, { recursive: true })
  })

  it('follows the template that training used', () => {
    expect(modelfile({ ...options, template: 'phi' })).toContain('<|user|>')
  })
})
