/**
 * A chat format by its parts, as LLaMA-Factory names it. `{content}`, `{bos}` and `{eos}` are filled in; a question's part
 * ends where the answer begins.
 */
interface Format {
  /** Before everything. */
  prefix?: string
  system: string
  /** The system text stands inside the first question (`inFirst`), or before it as a part of its own. */
  systemPlace?: 'own' | 'inFirst'
  defaultSystem?: string
  user: string
  assistant: string
  /** A tool's result; written as a question when left out. */
  observation?: string
  /** Between results of tools that were called together; a line break when left out. */
  betweenResults?: string
  /** Tokens that end an answer besides the model's own end token. */
  stops: readonly string[]
  /** Nothing marks an answer's end (LLaMA-Factory's efficient_eos): see ChatTemplate.learnsEnd. */
  learnsEnd?: true
  /** What ends a raw text (stage pt) where the end token ends turns. */
  textEnd?: string
}

const CHATML: Format = {
  system: '<|im_start|>system\n{content}<|im_end|>\n',
  user: '<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n',
  assistant: '{content}<|im_end|>\n',
  stops: ['<|im_end|>'],
}

const QWEN_NOTHINK: Format = {
  ...CHATML,
  betweenResults: '\n</tool_response>\n<tool_response>\n',
  observation:
    '<|im_start|>user\n<tool_response>\n{content}\n</tool_response><|im_end|>\n<|im_start|>assistant\n',
}

const GEMMA: Format = {
  prefix: '{bos}',
  system: '{content}\n\n',
  systemPlace: 'inFirst',
  user: '<start_of_turn>user\n{content}<end_of_turn>\n<start_of_turn>model\n',
  assistant: '{content}<end_of_turn>\n',
  observation: '<start_of_turn>tool\n{content}<end_of_turn>\n<start_of_turn>model\n',
  stops: ['<end_of_turn>'],
}

const GLM: Format = {
  prefix: '[gMASK]<sop>',
  system: '<|system|>\n{content}',
  user: '<|user|>\n{content}<|assistant|>',
  assistant: '\n{content}',
  observation: '<|observation|>\n{content}<|assistant|>',
  stops: ['<|user|>', '<|observation|>'],
  learnsEnd: true,
}

const LLAMA2: Format = {
  system: '<<SYS>>\n{content}\n<</SYS>>\n\n',
  systemPlace: 'inFirst',
  user: '{bos}[INST] {content} [/INST]',
  assistant: '{content}{eos}',
  stops: [],
}

/** The published formats of model families, by LLaMA-Factory's names (its data/template.py at ff6d4d1). */
export const FORMATS: Readonly<Record<string, Format>> = {
  llama2: LLAMA2,
  llama3: {
    prefix: '{bos}',
    system: '<|start_header_id|>system<|end_header_id|>\n\n{content}<|eot_id|>',
    user:
      '<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>' +
      '<|start_header_id|>assistant<|end_header_id|>\n\n',
    assistant: '{content}<|eot_id|>',
    observation:
      '<|start_header_id|>ipython<|end_header_id|>\n\n{content}<|eot_id|>' +
      '<|start_header_id|>assistant<|end_header_id|>\n\n',
    stops: ['<|eot_id|>', '<|eom_id|>'],
    textEnd: '<|end_of_text|>',
  },
  mistral: {
    prefix: '{bos}',
    system: '{content}\n\n',
    systemPlace: 'inFirst',
    user: '[INST] {content}[/INST]',
    assistant: ' {content}{eos}',
    observation: '[TOOL_RESULTS] {"content": {content}}[/TOOL_RESULTS]',
    stops: [],
  },
  qwen: {
    ...QWEN_NOTHINK,
    defaultSystem: 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.',
  },
  qwen3_nothink: QWEN_NOTHINK,
  gemma: GEMMA,
  gemma2: { ...GEMMA, learnsEnd: true },
  gemma3: GEMMA,
  phi: {
    system: '<|system|>\n{content}<|end|>\n',
    user: '<|user|>\n{content}<|end|>\n<|assistant|>\n',
    assistant: '{content}<|end|>\n',
    stops: ['<|end|>'],
  },
  phi4: {
    system: '<|im_start|>system<|im_sep|>{content}<|im_end|>',
    user: '<|im_start|>user<|im_sep|>{content}<|im_end|><|im_start|>assistant<|im_sep|>',
    assistant: '{content}<|im_end|>',
    stops: ['<|im_end|>'],
  },
  chatglm3: { ...GLM, prefix: '[gMASK]sop' },
  glm4: GLM,
  yi: CHATML,
  deepseek: {
    prefix: '{bos}',
    system: '{content}\n\n',
    user: 'User: {content}\n\nAssistant:',
    assistant: '{content}{eos}',
    stops: [],
  },
  deepseek3: {
    prefix: '{bos}',
    system: '{content}',
    user: '<｜User｜>{content}<｜Assistant｜>',
    assistant: '{content}{eos}',
    stops: [],
  },
  zephyr: {
    system: '<|system|>\n{content}{eos}',
    user: '<|user|>\n{content}{eos}<|assistant|>\n',
    assistant: '{content}{eos}',
    defaultSystem: 'You are Zephyr, a helpful assistant.',
    stops: [],
  },
}

/** A format as a Jinja template, so that everything that renders conversations renders these too. */
export function formatSource(format: Format): string {
  const { prefix = '', system, systemPlace = 'own', defaultSystem, user, assistant } = format
  const { observation = user, betweenResults = '\n' } = format
  const part = (text: string, content = 'message.content') => `{{ ${expression(text, content)} }}`
  const head = `{%- set ns = namespace(system='', first=true, results='') -%}
{%- if messages and messages[0].role == 'system' -%}{%- set ns.system = messages[0].content -%}
{%- else -%}{%- set ns.system = ${JSON.stringify(defaultSystem ?? '')} -%}{%- endif -%}`
  const own = `{%- if ns.system -%}${part(system, 'ns.system')}{%- endif -%}`
  const opening = (text: string) =>
    systemPlace === 'own'
      ? part(text)
      : `{%- if ns.first and ns.system -%}${part(text, `${expression(system, 'ns.system')} ~ message.content`)}` +
        `{%- else -%}${part(text)}{%- endif -%}`
  return `${head}${prefix === '' ? '' : part(prefix)}${systemPlace === 'own' ? own : ''}{%- for message in messages -%}
{%- if message.role == 'user' -%}${opening(user)}{%- set ns.first = false -%}
{%- elif message.role == 'tool' -%}
{%- set ns.results = ns.results ~ message.content -%}
{%- if not loop.last and messages[loop.index0 + 1].role == 'tool' -%}
{%- set ns.results = ns.results ~ ${JSON.stringify(betweenResults)} -%}
{%- else -%}${part(observation, 'ns.results')}{%- set ns.results = '' -%}{%- endif -%}
{%- elif message.role == 'assistant' -%}${part(assistant)}
{%- endif -%}
{%- endfor -%}`
}

/** 'a{content}b' as the Jinja expression 'a' ~ content ~ 'b'. */
function expression(text: string, content: string): string {
  const names: Record<string, string> = {
    '{content}': `(${content})`,
    '{bos}': 'bos_token',
    '{eos}': 'eos_token',
  }
  return text
    .split(/(\{content\}|\{bos\}|\{eos\})/)
    .filter((piece) => piece !== '')
    .map((piece) => names[piece] ?? JSON.stringify(piece))
    .join(' ~ ')
}
