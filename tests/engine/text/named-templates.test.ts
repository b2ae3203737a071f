import { describe, expect, it } from 'vitest'
import { resolveChatTemplate } from '../../../engine/text/chat-template.ts'
import type { EncodedExample, PairExample } from '../../../engine/text/conversation.ts'
import { encodeConversation } from '../../../engine/text/encode.ts'
import { encodeRow } from '../../../engine/text/encode-answers.ts'
import { FORMATS } from '../../../engine/text/named-templates.ts'
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
