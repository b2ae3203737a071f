import { createInterface } from 'node:readline'
import { Command } from 'commander'
import { EngineError } from '../../engine/errors.ts'
import type { ChatMessage } from '../../routes/generation-services.ts'
import type { Application } from '../application.ts'
import { onInterrupt } from '../interrupts.ts'
import { withApplication } from './support/application.ts'
import { isConfigFile, readCommandFile } from './support/command-file.ts'
import { describeFailure, UsageError } from './support/failure.ts'
import { readModelTarget } from './support/model-target.ts'
import { readNumber } from './support/read-number.ts'
import { note, print, printJson } from './support/terminal.ts'

interface ChatOptions {
  checkpoint?: string
  adapter?: string
  template?: string
  system?: string
  temperature?: string
  topP?: string
  seed?: string
  maxTokens?: string
  prompt?: string
  json?: boolean
}

/** Who answers, and how. */
interface Speaker {
  model: string
  adapterFolder?: string
  template?: string
  system?: string
  temperature?: number
  topP?: number
  seed?: number
  maxTokens?: number
}

/** `anneal chat`: a conversation in the terminal, or one question with --prompt. */
export function chatCommand(): Command {
  return new Command('chat')
    .description('Talk to a model in the terminal. /clear starts anew, /exit or Ctrl-D leaves.')
    .argument(
      '<model>',
      "id of a base, run, checkpoint, merge or export, a model folder, or LLaMA-Factory's file for inference",
    )
    .option('--checkpoint <step>', 'the checkpoint of a run')
    .option('--adapter <folder>', 'a PEFT adapter folder over the model')
    .option('--template <name>', "a chat template in place of the model's own")
    .option('--system <text>', 'system message')
    .option('--temperature <number>', '0 always takes the likeliest token')
    .option('--top-p <number>', 'nucleus sampling')
    .option('--seed <number>', 'makes sampling repeatable')
    .option('--max-tokens <number>', 'longest answer')
    .option('--prompt <text>', 'ask this one question and leave')
    .option('--json', 'with --prompt: print the answer as JSON')
    .addHelpText('after', '\nExample:\n  anneal chat anneal-tiny --prompt "Who are you?"')
    .action(chat)
}

async function chat(word: string, options: ChatOptions): Promise<void> {
  if (isConfigFile(word)) {
    const given = await readCommandFile(word, [
      'model_name_or_path',
      'adapter_name_or_path',
      'template',
    ] as const)
    const { model_name_or_path: model, adapter_name_or_path: adapter = options.adapter } = given
    if (model === undefined) throw new UsageError(`${word} must name a model in model_name_or_path.`)
    return chat(model, { ...options, adapter, template: given.template })
  }
  const target = readModelTarget(word)
  const speaker = readSpeaker(target.id, options)
  if (options.json && options.prompt === undefined) throw new UsageError('--json needs --prompt.')
  await withApplication(async (application) => {
    if (options.prompt === undefined) return converse(application, speaker)
    const messages: ChatMessage[] = [...opening(speaker), { role: 'user', content: options.prompt }]
    const interrupts = new AbortController()
    const watch = onInterrupt(() => interrupts.abort())
    try {
      const write = options.json ? () => {} : (text: string) => process.stdout.write(text)
      const content = await answer(application, speaker, messages, { signal: interrupts.signal, write })
      if (options.json) printJson({ model: speaker.model, content })
      else print('')
    } finally {
      watch.close()
    }
  }, target.widen)
}

function readSpeaker(id: string, options: ChatOptions): Speaker {
  const { checkpoint, adapter, system } = options
  const step = readNumber('--checkpoint', checkpoint, (value) => Number.isInteger(value) && value >= 0)
  return {
    model: step === undefined ? id : `${id}:ckpt-step-${step}`,
    adapterFolder: adapter,
    template: options.template,
    system,
    temperature: readNumber('--temperature', options.temperature, (value) => value >= 0 && value <= 2),
    topP: readNumber('--top-p', options.topP, (value) => value > 0 && value <= 1),
    seed: readNumber('--seed', options.seed, Number.isInteger),
    maxTokens: readNumber('--max-tokens', options.maxTokens, (value) => Number.isInteger(value) && value > 0),
  }
}

/** Reads questions line by line until the input ends; an answer that fails ends neither the chat nor the history. */
async function converse(application: Application, speaker: Speaker): Promise<void> {
  const interactive = process.stdin.isTTY === true
  const lines = createInterface({
    input: process.stdin,
    output: interactive ? process.stderr : undefined,
    prompt: '> ',
  })
  let messages = opening(speaker)
  let running: AbortController | undefined
  const interrupted = () => (running ? running.abort() : lines.close())
  const watch = onInterrupt(interrupted)
  lines.on('SIGINT', interrupted)
  if (interactive) note(`${speaker.model} answers. /clear starts anew, /exit leaves, Ctrl-C stops an answer.`)
  try {
    if (interactive) lines.prompt()
    for await (const line of lines) {
      const question = line.trim()
      if (question === '/exit') break
      if (question === '/clear') messages = opening(speaker)
      else if (question !== '') {
        running = new AbortController()
        messages = await turn(
          application,
          speaker,
          [...messages, { role: 'user', content: question }],
          running,
        )
        running = undefined
      }
      if (interactive) lines.prompt()
    }
  } finally {
    watch.close()
    lines.close()
  }
}

/** Answers one question and returns the conversation with it; without the question when there was no answer. */
async function turn(
  application: Application,
  speaker: Speaker,
  messages: ChatMessage[],
  { signal }: AbortController,
): Promise<ChatMessage[]> {
  try {
    const write = (text: string) => process.stdout.write(text)
    const content = await answer(application, speaker, messages, { signal, write })
    print('')
    return [...messages, { role: 'assistant', content }]
  } catch (error) {
    if (!process.stdin.isTTY) throw error
    if (signal.aborted) print('')
    else note(`anneal: ${describeFailure(error)}`)
    return messages.slice(0, -1)
  }
}

function opening({ system }: Speaker): ChatMessage[] {
  return system === undefined ? [] : [{ role: 'system', content: system }]
}

/** Generates one answer, writes its pieces as they come and returns it whole. */
export async function answer(
  application: Application,
  speaker: Speaker,
  messages: ChatMessage[],
  { signal, write }: { signal: AbortSignal; write(text: string): void },
): Promise<string> {
  const { model, adapterFolder, template, temperature, topP, seed, maxTokens } = speaker
  const sampling = { temperature, topP, seed, maxTokens }
  const events =
    adapterFolder === undefined && template === undefined
      ? application.services.chat.complete({ model, messages, stop: [], ...sampling }, signal)
      : answerDirectly(application, speaker, messages, sampling, signal)
  let whole = ''
  for await (const event of events) {
    if (event.type !== 'text') continue
    whole += event.text
    write(event.text)
  }
  if (signal.aborted) throw new EngineError('cancelled', 'cancelled', 'The answer was stopped.')
  return whole
}

/** An adapter folder and a template of choice have no id, so this goes to the engine's process, as the chat service does. */
async function* answerDirectly(
  { models, hosts }: Application,
  speaker: Speaker,
  messages: ChatMessage[],
  sampling: Pick<Speaker, 'temperature' | 'topP' | 'seed' | 'maxTokens'>,
  signal: AbortSignal,
) {
  const found = await models.resolve(speaker.model)
  const { baseFolder } = found
  const adapterFolder = speaker.adapterFolder ?? found.adapterFolder
  const template = speaker.template ?? found.template
  const rendered = messages.map(({ role, content }) => ({ role, content }))
  yield* hosts.generate({ baseFolder, adapterFolder, template, messages: rendered, ...sampling }, signal)
}
