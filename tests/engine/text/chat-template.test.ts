import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import {
  type ChatTemplate,
  resolveChatTemplate,
  type TemplateMessage,
} from '../../../engine/text/chat-template.ts'
import { toTemplateConversation } from '../../../engine/text/template-messages.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { NEEDS_SHARED, SHARED, sharedMissing } from '../../shared.ts'
import { byteTokenizerFolder, writeModelFolder } from './byte-tokenizer.ts'

const withTemplate = (source: string) => resolveChatTemplate(loadTokenizer(byteTokenizerFolder(source)))
const bare = () => loadTokenizer(writeModelFolder({}))
const dialogue: TemplateMessage[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'a' },
  { role: 'assistant', content: 'b' },
]

describe('resolveChatTemplate', () => {
  it("takes the model's own template under each of its names", () => {
    const tokenizer = loadTokenizer(byteTokenizerFolder('{{ messages[0].content }}!'))
    for (const name of [undefined, null, 'auto', 'tokenizer']) {
      const template = resolveChatTemplate(tokenizer, name)
      expect(template.origin).toBe('tokenizer')
      expect(template.render([{ role: 'user', content: 'hi' }])).toBe('hi!')
    }
  })

  it('knows chatml and empty without the model', () => {
    expect(resolveChatTemplate(bare(), 'chatml').render(dialogue)).toBe(
      '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n',
    )
    expect(resolveChatTemplate(bare(), 'empty').render(dialogue)).toBe('Be brief.ab<|im_end|>')
  })

  it('falls back to plain lines with a warning when the model has no template', () => {
    const template = resolveChatTemplate(bare())
    expect(template.warning).toContain('no chat template')
    expect(template.render(dialogue)).toBe('System: Be brief.\nHuman: a\nAssistant: b<|im_end|>\n')
    expect(template.render(dialogue.slice(0, 2), { addGenerationPrompt: true })).toBe(
      'System: Be brief.\nHuman: a\nAssistant:',
    )
  })

  it("gives the model's own template what a config says beside it", () => {
    const source =
      '{{ messages[0].role }}|{{ enable_thinking }}|{% if messages[1] %}{{ messages[1].role }}{% endif %}'
    const tokenizer = loadTokenizer(byteTokenizerFolder(source))
    const template = resolveChatTemplate(tokenizer, { enableThinking: false, defaultSystem: 'Be kind.' })
    expect(template.render([{ role: 'user', content: 'hi' }])).toBe('system|false|user')
    expect(template.render(dialogue)).toBe('system|false|user')
    expect(template.render(dialogue, { variables: { enable_thinking: true } })).toContain('|true|')
    expect(() => resolveChatTemplate(tokenizer, { toolFormat: 'qwen' })).toThrow(
      /tool_format belongs to a named/,
    )
  })

  it('lists the known names for an unknown one', () => {
    expect(() => resolveChatTemplate(bare(), 'llama9')).toThrow(
      /Template llama9 does not exist\. Known: .*chatml/,
    )
  })

  it('reports a template that does not parse, and one that raises', () => {
    expect(() => withTemplate('{% if %}')).toThrow(/does not parse/)
    expect(() => withTemplate("{{ raise_exception('roles must alternate') }}").render(dialogue)).toThrow(
      'The chat template refuses these messages: roles must alternate',
    )
  })
})

describe('ChatTemplate.render', () => {
  it("strips the characters that a template names and no others, as Python's strings do", () => {
    const render = (source: string) => withTemplate(source).render([{ role: 'user', content: '\n  a\n \n' }])
    expect(render("{{ messages[0].content.lstrip('\\n') }}")).toBe('  a\n \n')
    expect(render("{{ messages[0].content.rstrip('\\n') }}")).toBe('\n  a\n ')
    expect(render("{{ messages[0].content.strip('\\n ') }}")).toBe('a')
    expect(render('{{ messages[0].content.strip() }}')).toBe('a')
    expect(render("{{ (messages[0].content.split('x') | last).lstrip('\\n') }}")).toBe('  a\n \n')
    expect(withTemplate("{{ 'aba'.strip('ab') }}{{ 'xax'.rstrip('x') }}").render([])).toBe('xa')
  })

  it('counts every line end of a template as one line feed, as Jinja does', () => {
    const windows = "{% for message in messages %}\r\n{{ 'x\r\n' + message.content }}\r\n{% endfor %}"
    const text = withTemplate(windows).render(dialogue)
    expect(text).toBe(withTemplate(windows.replaceAll('\r\n', '\n')).render(dialogue))
    expect(text).not.toContain('\r')
  })

  it('passes tokens, tools and listed variables, and refuses the others', () => {
    const template = withTemplate(
      '{{ bos_token }}{{ eos_token }}{% if tools %}{{ tools[0].function.name }}{% endif %}{% if enable_thinking %}?{% endif %}',
    )
    const options = {
      tools: [{ type: 'function', function: { name: 'f' } }],
      variables: { enable_thinking: true },
    }
    expect(template.render([], options)).toBe('<|im_start|><|im_end|>f?')
    expect(template.render([], { tools: [] })).toBe('<|im_start|><|im_end|>')
    expect(() => template.render([], { variables: { messages: [] } })).toThrow(
      /messages is no chat template variable/,
    )
  })

  it('has strftime_now', () => {
    expect(withTemplate("{{ strftime_now('%Y') }}").render([])).toMatch(/^\d{4}$/)
  })
})

describe('toTemplateConversation', () => {
  const conversation = {
    kind: 'chat' as const,
    system: 'S',
    tools: '[{"name": "add", "parameters": {}}]',
    messages: [
      { role: 'user' as const, content: '1+1' },
      { role: 'function' as const, content: '{"name": "add", "arguments": "{\\"a\\": 1}"}' },
      { role: 'observation' as const, content: '2' },
      { role: 'assistant' as const, content: 'two' },
    ],
  }

  it('gives tools and calls in their own form to a template that shows them', () => {
    const template = withTemplate(
      "{{ tools }}{% for m in messages %}{% if m.role == 'tool' %}{{ m.tool_calls }}{% endif %}{% endfor %}",
    )
    expect(toTemplateConversation(conversation, template)).toEqual({
      system: [{ role: 'system', content: 'S' }],
      tools: [{ type: 'function', function: { name: 'add', parameters: {} } }],
      turns: [
        [{ role: 'user', content: '1+1' }],
        [
          {
            role: 'assistant',
            content: '',
            tool_calls: [
              { id: 'call00001', type: 'function', function: { name: 'add', arguments: { a: 1 } } },
            ],
          },
        ],
        [{ role: 'tool', content: '2', tool_call_id: 'call00001' }],
        [{ role: 'assistant', content: 'two' }],
      ],
    })
  })

  it('gives the results of tools that were called together each a message of its own, with the id of its call', () => {
    const template = withTemplate("{{ messages[0].tool_calls }}{{ 'tool' }}")
    const call = (name: string) => ({ name, arguments: {} })
    const messages = [
      { role: 'user' as const, content: 'q' },
      { role: 'function' as const, content: JSON.stringify([call('f')]) },
      { role: 'observation' as const, content: '0' },
      { role: 'function' as const, content: JSON.stringify([call('g'), call('h')]) },
      { role: 'observation' as const, content: '1', more: ['2'] },
      { role: 'assistant' as const, content: 'a' },
    ]
    const turns = (given: ChatTemplate) => toTemplateConversation({ kind: 'chat', messages }, given).turns
    expect(turns(template)[4]).toEqual([
      { role: 'tool', content: '1', tool_call_id: 'call00002' },
      { role: 'tool', content: '2', tool_call_id: 'call00003' },
    ])
    expect(turns(withTemplate('{{ messages[0].content }}'))[4]).toEqual([{ role: 'user', content: '1\n2' }])
  })

  it('gives them as plain text to a template that does not', () => {
    const plain = toTemplateConversation(conversation, withTemplate('{{ messages[0].content }}'))
    expect(plain.tools).toEqual([])
    expect(plain.system[0]?.content).toMatch(/^S\n\nThese tools .*\n\{"name":"add"/)
    const turns = plain.turns.flat()
    expect(turns.map(({ role }) => role)).toEqual(['user', 'assistant', 'user', 'assistant'])
    expect(turns[1]?.content).toBe(conversation.messages[1]?.content)
  })

  it('refuses tools that are not JSON', () => {
    expect(() => toTemplateConversation({ ...conversation, tools: '[{' }, withTemplate(''))).toThrow(
      /not valid JSON/,
    )
  })
})

describe.skipIf(sharedMissing())(`SmolLM2's chat template ${NEEDS_SHARED}`, () => {
  it('renders as transformers does', () => {
    const { chat_template: cases } = JSON.parse(
      readFileSync(`${SHARED}golden/SmolLM2-135M-Instruct/reference.json`, 'utf8'),
    ) as { chat_template: { messages: TemplateMessage[]; add_generation_prompt: boolean; text: string }[] }
    const template = resolveChatTemplate(loadTokenizer(`${SHARED}models/SmolLM2-135M-Instruct`))
    for (const { messages, add_generation_prompt, text } of cases) {
      expect(template.render(messages, { addGenerationPrompt: add_generation_prompt })).toBe(text)
    }
  })
})
