import { describe, expect, it } from 'vitest'
import { resolveChatTemplate } from '../../../engine/text/chat-template.ts'
import type { EncodedExample, Message, PairExample } from '../../../engine/text/conversation.ts'
import { encodeConversation } from '../../../engine/text/encode.ts'
import { encodeRow } from '../../../engine/text/encode-answers.ts'
import { FORMATS } from '../../../engine/text/formats.ts'
import type { TemplateChoice } from '../../../engine/text/template-choice.ts'
import type { ChatConversation } from '../../../engine/text/template-messages.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { checkEndOfTurn } from '../../../engine/text/turns.ts'
import { byteTokenizerFolder } from './byte-tokenizer.ts'

const tokenizer = loadTokenizer(byteTokenizerFolder())
const { bos = '', eos = '' } = tokenizer.tokens

const messages = [
  { role: 'system', content: 'Be kind.' },
  { role: 'user', content: 'Hi "there"' },
  { role: 'assistant', content: 'Hello.' },
  { role: 'user', content: 'Bye' },
]

/** As LLaMA-Factory's own encoder joins these formats' parts, written out by hand. */
const EXPECTED: Record<string, string> = {
  llama2: `${bos}[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi "there" [/INST]Hello.${eos}${bos}[INST] Bye [/INST]`,
  llama3:
    `${bos}<|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>` +
    '<|start_header_id|>user<|end_header_id|>\n\nHi "there"<|eot_id|>' +
    '<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>' +
    '<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n',
  mistral: `${bos}[INST] Be kind.\n\nHi "there"[/INST] Hello.${eos}[INST] Bye[/INST]`,
  qwen3_nothink:
    '<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi "there"<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n' +
    '<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n',
  gemma:
    `${bos}<start_of_turn>user\nBe kind.\n\nHi "there"<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n` +
    '<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n',
  phi:
    '<|system|>\nBe kind.<|end|>\n<|user|>\nHi "there"<|end|>\n<|assistant|>\nHello.<|end|>\n' +
    '<|user|>\nBye<|end|>\n<|assistant|>\n',
  glm4: '[gMASK]<sop><|system|>\nBe kind.<|user|>\nHi "there"<|assistant|>\nHello.<|user|>\nBye<|assistant|>',
  deepseek3: `${bos}Be kind.<｜User｜>Hi "there"<｜Assistant｜>Hello.${eos}<｜User｜>Bye<｜Assistant｜>`,
}

/** Learned text of a conversation in a template, between « and ». */
function shown(
  choice: TemplateChoice,
  conversation: Partial<ChatConversation> & { messages: Message[] },
  maskHistory = false,
) {
  const template = resolveChatTemplate(tokenizer, choice)
  const row = { kind: 'chat' as const, ...conversation }
  const { inputIds, labels } = encodeConversation(row, tokenizer, {
    template,
    cutoffLength: 9999,
    maskHistory,
  })
  let text = ''
  let start = 0
  for (let at = 1; at <= inputIds.length; at++) {
    if (at < inputIds.length && (labels[at] === -100) === (labels[start] === -100)) continue
    const part = tokenizer.decode(inputIds.subarray(start, at))
    text += labels[start] === -100 ? part : `«${part}»`
    start = at
  }
  return text
}

const talk = (...contents: string[]): Message[] =>
  contents.map((content, index) => ({ role: index % 2 === 0 ? 'user' : 'assistant', content }))

describe('named templates', () => {
  it.each(Object.entries(EXPECTED))('%s joins its parts as LLaMA-Factory does', (name, text) => {
    expect(resolveChatTemplate(tokenizer, name).render(messages, { addGenerationPrompt: true })).toBe(text)
  })

  it("qwen gives its own system text where there is none, and the row's where there is one", () => {
    const template = resolveChatTemplate(tokenizer, 'qwen')
    expect(template.render(messages)).toContain('Be kind.')
    expect(template.render(messages)).not.toContain('Alibaba')
    expect(template.render(messages.slice(1))).toMatch(/^<\|im_start\|>system\nYou are Qwen/)
  })

  it.each(Object.keys(FORMATS))('%s learns exactly the answer and its end', (name) => {
    const template = resolveChatTemplate(tokenizer, name)
    const conversation = {
      kind: 'chat' as const,
      messages: [
        { role: 'user' as const, content: 'Question' },
        { role: 'assistant' as const, content: 'Answer' },
      ],
    }
    const { inputIds, labels } = encodeConversation(conversation, tokenizer, { template, cutoffLength: 4096 })
    const answer = tokenizer.decode(inputIds.filter((_, index) => labels[index] !== -100))
    const learned = answer.replace(/^(<think>\s*)?<\/think>/, '')
    expect(learned.trim().startsWith('Answer')).toBe(true)
    expect(learned).not.toContain('Question')
  })

  it('qwen3 learns an empty thought where an answer has none', () => {
    const thought = '<think>\nadd\n</think>\n\n2'
    expect(shown({ name: 'qwen3' }, { messages: talk('1+1', thought, '2+2', '4') })).toBe(
      `<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n«${thought}<|im_end|>\n»` +
        '<|im_start|>user\n2+2<|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\n4<|im_end|>\n»',
    )
  })

  it('qwen3 with enable_thinking false drops thoughts and gives the empty one', () => {
    const choice = { name: 'qwen3', enableThinking: false }
    expect(shown(choice, { messages: talk('1+1', '<think>\nadd\n</think>\n\n2') })).toBe(
      '<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n«2<|im_end|>\n»',
    )
    const asked = [{ role: 'user', content: 'Hi' }]
    const render = (variables = {}) =>
      resolveChatTemplate(tokenizer, choice).render(asked, { addGenerationPrompt: true, variables })
    expect(render()).toBe('<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n')
    expect(render({ enable_thinking: true })).toBe('<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n')
  })

  it('qwen3 drops earlier thoughts where the last answer alone is learned, unless they are preserved', () => {
    const messages = talk('1', '<think>\na\n</think>\n\n2', '3', '4')
    expect(shown({ name: 'qwen3' }, { messages }, true)).toContain('assistant\n2<|im_end|>')
    expect(shown({ name: 'qwen3', preserveThinking: true }, { messages }, true)).toContain('\n</think>\n\n2')
    const chat = (choice: TemplateChoice) =>
      resolveChatTemplate(tokenizer, choice).render(messages.slice(0, 3))
    expect(chat({ name: 'qwen3' })).not.toContain('think')
    expect(chat({ name: 'qwen3', preserveThinking: true })).toContain('<think>\na\n</think>\n\n2')
  })

  it("lists tools and writes calls in LLaMA-Factory's words", () => {
    const tools = JSON.stringify([
      {
        name: 'f',
        description: 'Does.',
        parameters: { properties: { a: { type: 'string', description: 'An a' } }, required: ['a'] },
      },
    ])
    const call: Message[] = [
      { role: 'user', content: 'Go' },
      { role: 'function', content: '{"name": "f", "arguments": {"a": "ü"}}' },
    ]
    expect(shown({ name: 'vicuna', defaultSystem: 'S.' }, { tools, messages: call })).toBe(
      'S.You have access to the following tools:\n> Tool Name: f\nTool Description: Does.\nTool Args:\n' +
        '  - a (string, required): An a\n\nUse the following format if using a tool:\n```\n' +
        'Action: tool name (one of [f])\nAction Input: the input to the tool, in a JSON format representing the kwargs ' +
        '(e.g. ```{"input": "hello world", "num_beams": 5}```)\n```\nUSER: Go ASSISTANT:' +
        '«Action: f\nAction Input: {"a": "ü"}<|im_end|>»',
    )
    expect(shown({ name: 'qwen3_nothink' }, { tools, messages: call })).toContain(
      '«<tool_call>\n{"name": "f", "arguments": {"a": "ü"}}\n</tool_call><|im_end|>\n»',
    )
    expect(shown({ name: 'mistral' }, { messages: call })).toContain(
      '«[TOOL_CALLS] [{"name": "f", "arguments": {"a": "ü"}}]<|im_end|>»',
    )
    expect(shown({ name: 'glm4' }, { messages: call })).toContain('<|assistant|>«f\n{"a": "ü"}<|im_end|>»')
    expect(shown({ name: 'vicuna', toolFormat: 'qwen3_5' }, { messages: call })).toContain(
      '«<tool_call>\n<function=f>\n<parameter=a>\nü\n</parameter>\n</function>\n</tool_call><|im_end|>»',
    )
  })

  it('refuses calls that are no JSON, two at once for GLM-4, and unknown tool formats', () => {
    const calling = (content: string): Message[] => [
      { role: 'user', content: 'Go' },
      { role: 'function', content },
    ]
    const two = '[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}]'
    expect(() => shown({ name: 'qwen3' }, { messages: calling('f()') })).toThrow(/must be JSON as in/)
    expect(() => shown({ name: 'qwen3' }, { messages: calling('{"name": "f"}') })).toThrow(
      /needs a name and arguments/,
    )
    expect(() => shown({ name: 'glm4' }, { messages: calling(two) })).toThrow(/one tool at a time/)
    expect(() => shown({ name: 'qwen3', toolFormat: 'xml' }, { messages: talk('a', 'b') })).toThrow(
      /Tool format xml does not exist/,
    )
    expect(() =>
      resolveChatTemplate(tokenizer, 'qwen3').render([...messages, { role: 'system', content: 'x' }]),
    ).toThrow(/at the beginning alone/)
  })

  it.each(['chatml', 'yi', 'phi', 'phi4', 'deepseek', 'deepseek3', 'zephyr', 'llama2'])(
    "%s writes a tool's result as a question of its own, before which the answer has its header",
    (name) => {
      const template = resolveChatTemplate(tokenizer, name)
      const render = (role: string) =>
        template.render(
          [
            { role: 'user', content: 'Look' },
            { role: 'assistant', content: 'Looking' },
            { role, content: 'RESULT' },
          ],
          { addGenerationPrompt: true },
        )
      const expected =
        name === 'chatml' ? render('user').replace('user\nRESULT', 'tool\nRESULT') : render('user')
      expect(render('tool')).toBe(expected)
    },
  )

  it('qwen3_nothink parts the results of several tools, and asks for the answer once', () => {
    const template = resolveChatTemplate(tokenizer, 'qwen3_nothink')
    const results = ['1', '2'].map((content) => ({ role: 'tool', content }))
    expect(
      template.render([...messages.slice(1, 3), ...results, { role: 'assistant', content: 'Done.' }]),
    ).toContain(
      'user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n' +
        '<|im_start|>assistant\nDone.<|im_end|>\n',
    )
  })

  it('gives ChatGLM3 its own start token, which is written without brackets', () => {
    expect(resolveChatTemplate(tokenizer, 'chatglm3').render(messages)).toMatch(/^\[gMASK\]sop<\|system\|>/)
  })

  describe.each(['glm4', 'chatglm3', 'gemma2'])('%s, whose answers end in the end token', (name) => {
    const template = resolveChatTemplate(tokenizer, name)
    const end = tokenizer.eosTokenId!
    const conversation = {
      kind: 'chat' as const,
      messages: ['Q1', 'A1', 'Q2', 'A2'].map((content, index) => ({
        role: index % 2 === 0 ? ('user' as const) : ('assistant' as const),
        content,
      })),
    }
    const learned = ({ inputIds, labels }: EncodedExample) =>
      [...labels].flatMap((label, index) => (label === -100 ? [] : [{ label, id: inputIds[index] }]))

    it('learns the end token where the next question begins, and behind the last answer', () => {
      const example = encodeConversation(conversation, tokenizer, { template, cutoffLength: 4096 })
      const ends = learned(example).filter(({ label }) => label === end)
      expect(ends).toHaveLength(2)
      expect(ends[0]!.id).not.toBe(end)
      expect(tokenizer.decode(example.inputIds)).toBe(
        template.render(conversation.messages) + tokenizer.tokens.eos,
      )
      expect(tokenizer.decode(learned(example).map(({ label }) => label))).toMatch(
        /^\n?A1.*<\|im_end\|>\n?A2.*<\|im_end\|>$/s,
      )
      expect(checkEndOfTurn(template, tokenizer)).toBeUndefined()
    })

    it('keeps the end token within the cutoff, and learns one alone with mask_history', () => {
      const short = encodeConversation(conversation, tokenizer, { template, cutoffLength: 40 })
      expect(short.inputIds).toHaveLength(40)
      expect(short.labels.at(-1)).toBe(end)
      const masked = { template, cutoffLength: 4096, maskHistory: true }
      const example = encodeConversation(conversation, tokenizer, masked)
      expect(learned(example).filter(({ label }) => label === end)).toHaveLength(1)
    })

    it('ends both answers of a pair with it, and refuses to learn prompts', () => {
      const pair = {
        kind: 'pair' as const,
        messages: conversation.messages.slice(0, 3),
        chosen: { role: 'assistant' as const, content: 'good' },
        rejected: { role: 'assistant' as const, content: 'bad' },
      }
      const { chosen, rejected } = encodeRow(pair, tokenizer, { template, cutoffLength: 4096 }) as PairExample
      expect([chosen.labels.at(-1), rejected.labels.at(-1)]).toEqual([end, end])
      const options = { template, cutoffLength: 4096, trainOnPrompt: true }
      expect(() => encodeConversation(conversation, tokenizer, options)).toThrow(
        /does not support `train_on_prompt`/,
      )
    })
  })

  it('names what it knows when it does not know a template', () => {
    expect(() => resolveChatTemplate(tokenizer, 'llama9')).toThrow(/llama9 does not exist.*llama3/)
  })
})
