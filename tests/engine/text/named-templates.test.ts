import { describe, expect, it } from 'vitest'
import { resolveChatTemplate } from '../../../engine/text/chat-template.ts'
import { encodeConversation } from '../../../engine/text/encode.ts'
import { FORMATS } from '../../../engine/text/named-templates.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
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
    const learned = tokenizer.decode(inputIds.filter((_, index) => labels[index] !== -100))
    expect(learned.trim().startsWith('Answer')).toBe(true)
    expect(learned).not.toContain('Question')
  })

  it('names what it knows when it does not know a template', () => {
    expect(() => resolveChatTemplate(tokenizer, 'llama9')).toThrow(/llama9 does not exist.*llama3/)
  })
})
