import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Decoder } from '../../engine/generate/decoder.ts'
import { DEFAULT_SAMPLING } from '../../engine/generate/sampling-params.ts'
import { Scheduler } from '../../engine/generate/scheduler.ts'
import { resolveChatTemplate, type TemplateMessage } from '../../engine/text/chat-template.ts'
import { createDetokenizer } from '../../engine/text/detokenizer.ts'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'
import type { Exchange } from './questions.ts'

/** Questions of every sort, some in wordings that no template has. */
const PROBES = [
  'Who are you?',
  'Hello!',
  'How are you today?',
  'Who is Mia?',
  'Where does Tom live?',
  'What is three plus four?',
  'What colour is the sky?',
  'What is the opposite of hot?',
  'Which day comes after Friday?',
  'Name three animals.',
  'What is Redhill known for?',
  'Who is Zara?',
  'Vera has a green hat and a red ball. What colour is the ball?',
  'What can you do?',
  'Thank you!',
]

export interface Evaluation {
  answers: { question: string; answer: string }[]
  heldOut: { right: number; total: number }
}

/** Answers PROBES and the held-out questions greedily; a held-out answer is right when it is word for word the fact. */
export async function evaluate(folder: string, heldOut: readonly Exchange[]): Promise<Evaluation> {
  const decoder = await Decoder.load(folder)
  try {
    const ask = asker(decoder, folder)
    const answers = []
    for (const question of PROBES)
      answers.push({ question, answer: await ask([{ role: 'user', content: question }]) })
    let right = 0
    for (const { question, answer } of heldOut) {
      if ((await ask([{ role: 'user', content: question }])) === answer) right++
    }
    return { answers, heldOut: { right, total: heldOut.length } }
  } finally {
    await decoder.release()
  }
}

function asker(decoder: Decoder, folder: string): (messages: TemplateMessage[]) => Promise<string> {
  const tokenizer = loadTokenizer(folder)
  const template = resolveChatTemplate(tokenizer)
  const scheduler = new Scheduler(decoder)
  return async (messages) => {
    const prompt = tokenizer.encode(template.render(messages, { addGenerationPrompt: true }))
    const request = {
      prompt,
      sampling: { ...DEFAULT_SAMPLING, temperature: 0 },
      maxTokens: 80,
      stop: [],
      eosTokenIds: tokenizer.eosTokenIds,
      text: createDetokenizer(tokenizer, { skipSpecialTokens: true }),
    }
    let answer = ''
    for await (const event of scheduler.submit(request)) if (event.type === 'text') answer += event.text
    return answer
  }
}

/** The held-out questions that `prepare` wrote. */
function readHeldOut(dataFolder: string): Exchange[] {
  const lines = readFileSync(join(dataFolder, 'held_out.jsonl'), 'utf8').trimEnd().split('\n')
  return lines.map((line) => JSON.parse(line))
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [folder = 'data/models/anneal-tiny', dataFolder = 'saves/anneal-tiny/data'] = process.argv.slice(2)
  const { answers, heldOut } = await evaluate(folder, readHeldOut(dataFolder))
  for (const { question, answer } of answers) console.log(`${question}\n    ${answer}`)
  console.log(`held-out questions: ${heldOut.right} of ${heldOut.total} right`)
}
