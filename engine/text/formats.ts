import { type Format, THINK } from './format.ts'

const IM_START = '<|im_start|>'
const IM_END = '<|im_end|>'

const CHATML: Format = {
  system: `${IM_START}system\n{content}${IM_END}\n`,
  user: `${IM_START}user\n{content}${IM_END}\n${IM_START}assistant\n`,
  assistant: `{content}${IM_END}\n`,
  stops: [IM_END],
}
const CHATML_TOOL: Format = {
  ...CHATML,
  observation: `${IM_START}tool\n{content}${IM_END}\n${IM_START}assistant\n`,
}
const CHATML_OWN: Format = { ...CHATML_TOOL, stops: [IM_END, IM_START], replacesEnd: true }

const THINK_TIGHT = ['<think>', '</think>'] as const

const QWEN: Format = {
  ...CHATML,
  observation: `${IM_START}user\n<tool_response>\n{content}\n</tool_response>${IM_END}\n${IM_START}assistant\n`,
  replacesEnd: true,
  tools: 'qwen',
}
const QWEN3_5: Format = { ...QWEN, tools: 'qwen3_5' }

const GEMMA: Format = {
  prefix: ['{bos}'],
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
  calls: '{content}',
  observation: '<|observation|>\n{content}<|assistant|>',
  stops: ['<|user|>', '<|observation|>'],
  learnsEnd: true,
  tools: 'glm4',
}
const CHATGLM3: Format = {
  prefix: ['{token:[gMASK]}', '{token:sop}'],
  system: ['{token:<|system|>}', '\n', '{content}'],
  user: ['{token:<|user|>}', '\n', '{content}', '{token:<|assistant|>}'],
  assistant: ['\n', '{content}'],
  calls: '{content}',
  observation: ['{token:<|observation|>}', '\n', '{content}', '{token:<|assistant|>}'],
  stops: ['<|user|>', '<|observation|>'],
  learnsEnd: true,
  tools: 'glm4',
}

const LLAMA2: Format = {
  system: '<<SYS>>\n{content}\n<</SYS>>\n\n',
  systemPlace: 'inFirst',
  user: ['{bos}', '[INST] {content} [/INST]'],
}

/** Llama 3's turns, with the words that Llama 4 has others for. */
function llama3(start: string, end: string, eot: string, eom: string): Format {
  const header = (role: string) => `${start}${role}${end}\n\n`
  return {
    prefix: ['{bos}'],
    system: `${header('system')}{content}${eot}`,
    user: `${header('user')}{content}${eot}${header('assistant')}`,
    assistant: `{content}${eot}`,
    observation: `${header('ipython')}{content}${eot}${header('assistant')}`,
    stops: [eot, eom],
    replacesEnd: true,
    tools: 'llama3',
  }
}

const MISTRAL: Format = {
  prefix: ['{bos}'],
  system: '{content}\n\n',
  systemPlace: 'inFirst',
  user: '[INST] {content}[/INST]',
  assistant: [' {content}', '{eos}'],
  calls: ['[TOOL_CALLS] {content}', '{eos}'],
  observation: '[TOOL_RESULTS] {"content": {content}}[/TOOL_RESULTS]',
  tools: 'mistral',
}
const MINISTRAL: Format = {
  ...MISTRAL,
  user: '[INST]{content}[/INST]',
  assistant: ['{content}', '{eos}'],
  calls: ['[TOOL_CALLS]{content}', '{eos}'],
  observation: '[TOOL_RESULTS]{"content": {content}}[/TOOL_RESULTS]',
}

const PHI: Format = {
  system: '<|system|>\n{content}<|end|>\n',
  user: '<|user|>\n{content}<|end|>\n<|assistant|>\n',
  assistant: '{content}<|end|>\n',
  stops: ['<|end|>'],
  replacesEnd: true,
}

const DEEPSEEK3: Format = { prefix: ['{bos}'], user: '<｜User｜>{content}<｜Assistant｜>' }

const GRANITE: Format = {
  system: '<|start_of_role|>system<|end_of_role|>{content}<|end_of_text|>\n',
  user: '<|start_of_role|>user<|end_of_role|>{content}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>',
  assistant: '{content}<|end_of_text|>\n',
}

const SEED: Format = {
  system: ['{bos}', 'system\n{content}', '{eos}'],
  user: ['{bos}', 'user\n{content}', '{eos}', '{bos}', 'assistant\n'],
}

/** The published formats of model families, by LLaMA-Factory's names (its data/template.py at 0.9.5; baichuan, orion and xverse at 0.9.2). */
export const FORMATS: Readonly<Record<string, Format>> = {
  alpaca: {
    user: '### Instruction:\n{content}\n\n### Response:\n',
    assistant: ['{content}', '{eos}', '\n\n'],
    defaultSystem:
      'Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n',
  },
  baichuan: { user: ['{token:<reserved_102>}', '{content}', '{token:<reserved_103>}'], learnsEnd: true },
  baichuan2: { user: '<reserved_106>{content}<reserved_107>', learnsEnd: true },
  breeze: { prefix: ['{bos}'], user: '[INST] {content} [/INST] ', learnsEnd: true },
  chatglm3: CHATGLM3,
  chatml: CHATML_OWN,
  chatml_de: {
    ...CHATML_OWN,
    defaultSystem: 'Du bist ein freundlicher und hilfsbereiter KI-Assistent.',
  },
  cohere: {
    prefix: ['{bos}'],
    system: '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{content}<|END_OF_TURN_TOKEN|>',
    user: '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{content}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>',
  },
  cpm4: { ...CHATML_TOOL, prefix: ['{bos}'] },
  deepseek: { prefix: ['{bos}'], system: '{content}\n\n', user: 'User: {content}\n\nAssistant:' },
  deepseek3: DEEPSEEK3,
  deepseekr1: { ...DEEPSEEK3, thoughts: THINK },
  deepseekcoder: {
    prefix: ['{bos}'],
    user: '### Instruction:\n{content}\n### Response:',
    assistant: '\n{content}\n<|EOT|>\n',
    defaultSystem:
      'You are an AI programming assistant, utilizing the DeepSeek Coder model, developed by DeepSeek Company, and you only ' +
      'answer questions related to computer science. For politically sensitive questions, security and privacy issues, ' +
      'and other non-computer science questions, you will refuse to answer.\n',
  },
  default: {
    system: ['System: {content}', '{eos}', '\n'],
    user: ['Human: {content}', '{eos}', '\nAssistant:'],
    assistant: ['{content}', '{eos}', '\n'],
  },
  exaone: {
    system: '[|system|]{content}[|endofturn|]\n',
    user: '[|user|]{content}\n[|assistant|]',
    assistant: ['{content}', '{eos}', '\n'],
  },
  falcon: { user: 'User: {content}\nFalcon:', assistant: '{content}\n', learnsEnd: true },
  falcon_h1: { ...CHATML_TOOL, prefix: ['{bos}'], stops: [IM_END, '<|end_of_text|>'] },
  fewshot: { assistant: '{content}\n\n', learnsEnd: true },
  gemma: { ...GEMMA, replacesEnd: true },
  gemma2: { ...GEMMA, stops: ['<eos>', '<end_of_turn>'], learnsEnd: true },
  gemma3: { ...GEMMA, replacesEnd: true },
  glm4: GLM,
  glm4_moe: { ...GLM, tools: 'glm4_moe', thoughts: THINK },
  glm4_7: { ...GLM, tools: 'glm4_moe', thoughts: THINK_TIGHT, emptyThought: '</think>' },
  glmz1: { ...GLM, thoughts: THINK },
  granite3: GRANITE,
  granite4: {
    ...GRANITE,
    observation: '<|start_of_role|>tool<|end_of_role|>{content}<|end_of_text|>\n<|start_of_role|>assistant\n',
    stops: ['<|end_of_text|>'],
    defaultSystem: 'You are Granite, developed by IBM. You are a helpful AI assistant.',
  },
  hunyuan: {
    prefix: '<|startoftext|>',
    system: '{content}<|extra_4|>',
    user: '{content}<|extra_0|>',
    assistant: '{content}<|eos|>',
    stops: ['<|eos|>'],
  },
  intern2: {
    ...CHATML,
    prefix: ['{bos}'],
    defaultSystem:
      'You are an AI assistant whose name is InternLM (书生·浦语).\n' +
      '- InternLM (书生·浦语) is a conversational language model that is developed by Shanghai AI Laboratory ' +
      '(上海人工智能实验室). It is designed to be helpful, honest, and harmless.\n' +
      '- InternLM (书生·浦语) can understand and communicate fluently in the language chosen by the user such as ' +
      'English and 中文.',
  },
  llama2: LLAMA2,
  llama2_zh: { ...LLAMA2, defaultSystem: 'You are a helpful assistant. 你是一个乐于助人的助手。' },
  llama3: {
    ...llama3('<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>', '<|eom_id|>'),
    textEnd: '<|end_of_text|>',
  },
  llama4: llama3('<|header_start|>', '<|header_end|>', '<|eot|>', '<|eom|>'),
  mimo: { ...QWEN, thoughts: THINK, defaultSystem: 'You are a helpful assistant.' },
  ministral: MINISTRAL,
  mistral: MISTRAL,
  mistral_small: {
    ...MINISTRAL,
    system: '[SYSTEM_PROMPT]{content}[/SYSTEM_PROMPT]',
    systemPlace: 'own',
  },
  moonlight: {
    system: '<|im_system|>system<|im_middle|>{content}<|im_end|>',
    user: '<|im_user|>user<|im_middle|>{content}<|im_end|><|im_assistant|>assistant<|im_middle|>',
    assistant: '{content}<|im_end|>',
    stops: [IM_END],
    replacesEnd: true,
    defaultSystem: 'You are a helpful assistant provided by Moonshot-AI.',
  },
  olmo: { prefix: ['{eos}'], user: '<|user|>\n{content}<|assistant|>\n' },
  openchat: {
    prefix: ['{bos}'],
    user: ['GPT4 Correct User: {content}', '{eos}', 'GPT4 Correct Assistant:'],
  },
  'openchat-3.6': {
    prefix: ['{bos}'],
    user:
      '<|start_header_id|>GPT4 Correct User<|end_header_id|>\n\n{content}<|eot_id|>' +
      '<|start_header_id|>GPT4 Correct Assistant<|end_header_id|>\n\n',
    stops: ['<|eot_id|>'],
  },
  opencoder: { ...CHATML_TOOL, defaultSystem: 'You are OpenCoder, created by OpenCoder Team.' },
  orion: { prefix: ['{bos}'], user: ['Human: {content}\n\nAssistant: ', '{eos}'] },
  phi: PHI,
  phi_small: PHI,
  phi4: {
    system: '<|im_start|>system<|im_sep|>{content}<|im_end|>',
    user: '<|im_start|>user<|im_sep|>{content}<|im_end|><|im_start|>assistant<|im_sep|>',
    assistant: '{content}<|im_end|>',
    stops: [IM_END],
    replacesEnd: true,
  },
  phi4_mini: {
    system: '<|system|>{content}<|end|>',
    user: '<|user|>{content}<|end|><|assistant|>',
    assistant: '{content}<|end|>',
    stops: ['<|end|>'],
    replacesEnd: true,
    rawTools: ['<|tool|>', '<|/tool|>'],
  },
  qwen: {
    ...QWEN,
    defaultSystem: 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.',
  },
  qwen3: { ...QWEN, thoughts: THINK },
  qwen3_nothink: QWEN,
  qwen3_5: { ...QWEN3_5, thoughts: THINK },
  qwen3_5_nothink: QWEN3_5,
  qwen3_6: { ...QWEN3_5, thoughts: THINK },
  sailor: {
    system: CHATML.system!,
    user: `${IM_START}question\n{content}${IM_END}\n${IM_START}answer\n`,
    assistant: CHATML.assistant!,
    stops: [IM_END],
    defaultSystem:
      'You are an AI assistant named Sailor created by Sea AI Lab. ' +
      'Your answer should be friendly, unbiased, faithful, informative and detailed.',
  },
  seed_coder: {
    ...SEED,
    defaultSystem:
      'You are an AI programming assistant, utilizing the Seed-Coder model, developed by ByteDance Seed, and you only ' +
      'answer questions related to computer science. For politically sensitive questions, security and privacy issues, ' +
      'and other non-computer science questions, you will refuse to answer.\n\n',
  },
  smollm: CHATML,
  smollm2: {
    ...CHATML,
    defaultSystem: 'You are a helpful AI assistant named SmolLM, trained by Hugging Face.',
  },
  solar: {
    system: '### System:\n{content}\n\n',
    user: '### User:\n{content}\n\n### Assistant:\n',
    learnsEnd: true,
  },
  starchat: {
    system: '<|system|>\n{content}<|end|>\n',
    user: '<|user|>\n{content}<|end|>\n<|assistant|>',
    assistant: '{content}<|end|>\n',
    stops: ['<|end|>'],
  },
  vicuna: {
    user: 'USER: {content} ASSISTANT:',
    defaultSystem:
      'A chat between a curious user and an artificial intelligence assistant. ' +
      "The assistant gives helpful, detailed, and polite answers to the user's questions.",
  },
  xuanyuan: {
    user: 'Human: {content} Assistant:',
    defaultSystem:
      '以下是用户和人工智能助手之间的对话。用户以Human开头，人工智能助手以Assistant开头，会对人类提出的问题给出有帮助、' +
      '高质量、详细和礼貌的回答，并且总是拒绝参与与不道德、不安全、有争议、政治敏感等相关的话题、问题和指示。\n',
  },
  xverse: { user: 'Human: {content}\n\nAssistant: ' },
  yi: CHATML,
  yuan: { user: ['{content}', '{token:<sep>}'], assistant: '{content}<eod>\n', stops: ['<eod>'] },
  zephyr: {
    system: ['<|system|>\n{content}', '{eos}'],
    user: ['<|user|>\n{content}', '{eos}', '<|assistant|>\n'],
    defaultSystem: 'You are Zephyr, a helpful assistant.',
  },
}
