import { EngineError } from '../errors.ts'
import type { ChatTemplate, TemplateMessage } from '../text/chat-template.ts'

/**
 * How a chat template writes a conversation, as what stands between its texts. Such forms can be said in any language of
 * templates, also in those that know neither Jinja nor its functions.
 */
export interface TurnForm {
  /** Before the first question of a conversation without a system text; a default system text is part of it. */
  readonly start: string
  /** Where a system text stands and what is around it; undefined where it is not shown. */
  readonly system: SystemForm | undefined
  /** Between a question and its answer in the history. */
  readonly answer: string
  /** Between an answer and the next question. */
  readonly between: string
  /** After an answer that is the last message. */
  readonly close: string
  /** After the last question, where the model goes on. */
  readonly prompt: string
  /** What follows `prompt` when thinking is turned off; empty where that is no matter. */
  readonly noThinking: string
}

interface SystemForm {
  /** In place of `start`, or before the text of the last question, wherever that stands. */
  readonly place: 'start' | 'last'
  readonly before: string
  readonly after: string
}

interface Exchange {
  question: string
  answer: string
}

/** Texts that no template holds, changes or strips. */
const SYSTEM = 'System-9f2c7e51'
const EXCHANGES: readonly Exchange[] = [1, 2, 3].map((turn) => ({
  question: `Question-${turn}-9f2c7e51`,
  answer: `Answer-${turn}-9f2c7e51`,
}))
const [FIRST, SECOND] = EXCHANGES as [Exchange, Exchange]

/** What templates do with texts as people write them, which a form must get right as well. */
const NATURAL: readonly Exchange[] = [
  { question: 'What is 1 + 1?', answer: '**Two**,\n\n- because {{ 1 }} and 1 are 2.' },
  { question: 'Why?\n\nSay it in "one" line.', answer: "Because of Peano's axioms." },
  { question: 'Größe, 漢字 und 🙂?', answer: 'Ja.' },
]

/**
 * Finds the form of a template by rendering conversations with it: with and without a system text, of one to three
 * questions. What the form says of them must be what the template says.
 *
 * @throws EngineError `unsupported` 'template_without_form' for a template that writes conversations in another way, as
 *   where a question's text changes what stands around it.
 */
export function readTurnForm(template: ChatTemplate): TurnForm {
  const form = probe(template)
  if (!form) throw withoutForm('writes the texts of a conversation in another order')
  for (const system of form.system && !refusesSystem(template) ? [undefined, 'Be brief.'] : [undefined]) {
    for (let turns = 1; turns <= NATURAL.length; turns++) {
      const exchanges = NATURAL.slice(0, turns)
      if (renderForm(form, exchanges, system) === render(template, exchanges, system)) continue
      throw withoutForm(`does not write a conversation of ${turns} question(s) as it writes others`)
    }
  }
  return form
}

/** The prompt that a form gives for the last of the questions; answers but the last are its history. */
export function renderForm(form: TurnForm, exchanges: readonly Exchange[], system?: string): string {
  const shown = system === undefined ? undefined : form.system
  const around = shown ? `${shown.before}${system}${shown.after}` : ''
  const pieces = exchanges.map(({ question, answer }, index) => {
    const isLast = index === exchanges.length - 1
    const head = index === 0 ? (shown?.place === 'start' ? around : form.start) : form.between
    const body = `${head}${isLast && shown?.place === 'last' ? around : ''}${question}`
    return isLast ? `${body}${form.prompt}` : `${body}${form.answer}${answer}`
  })
  return pieces.join('')
}

function probe(template: ChatTemplate): TurnForm | undefined {
  const plain = cut(render(template, [FIRST, SECOND]), [FIRST.question, FIRST.answer, SECOND.question])
  if (!plain) return undefined
  const [start, answer, between, prompt] = plain as [string, string, string, string]
  const close = closing(template)
  const form = { start, answer, between, close, prompt, noThinking: noThinking(template, prompt) }
  if (refusesSystem(template)) {
    // Where the template has no place for a system text, it is the beginning of the first question.
    return { ...form, system: { place: 'start', before: start, after: '\n\n' } }
  }
  const text = render(template, [FIRST, SECOND], SYSTEM)
  if (!text.includes(SYSTEM)) return { ...form, system: undefined }
  const first = cut(text, [SYSTEM, FIRST.question, FIRST.answer, SECOND.question])
  if (first) return { ...form, system: { place: 'start', before: first[0]!, after: first[1]! } }
  const [, , before, after] = cut(text, [FIRST.question, FIRST.answer, SYSTEM, SECOND.question]) ?? []
  if (!before?.startsWith(between)) return undefined
  return { ...form, system: { place: 'last', before: before.slice(between.length), after: after! } }
}

function closing(template: ChatTemplate): string {
  const messages = [...toMessages([FIRST]), { role: 'assistant', content: FIRST.answer }]
  const text = template.render(messages)
  return text.slice(text.lastIndexOf(FIRST.answer) + FIRST.answer.length)
}

/** What a template adds behind the last question when thinking is turned off, as Qwen3's does. */
function noThinking(template: ChatTemplate, prompt: string): string {
  const messages = toMessages([FIRST])
  const variables = { enable_thinking: false }
  const text = template.render(messages, { addGenerationPrompt: true, variables })
  const end = text.slice(text.indexOf(FIRST.question) + FIRST.question.length)
  return end.startsWith(prompt) ? end.slice(prompt.length) : ''
}

function refusesSystem(template: ChatTemplate): boolean {
  try {
    render(template, [FIRST], SYSTEM)
    return false
  } catch (error) {
    if (error instanceof EngineError && error.code === 'chat_template_failed') return true
    throw error
  }
}

function render(template: ChatTemplate, exchanges: readonly Exchange[], system?: string): string {
  return template.render(toMessages(exchanges, system), { addGenerationPrompt: true })
}

function toMessages(exchanges: readonly Exchange[], system?: string): TemplateMessage[] {
  const turns = exchanges.flatMap(({ question, answer }) => [
    { role: 'user', content: question },
    { role: 'assistant', content: answer },
  ])
  return [...(system === undefined ? [] : [{ role: 'system', content: system }]), ...turns.slice(0, -1)]
}

/** The pieces between texts that stand in this order, each once; undefined when they do not. */
function cut(text: string, marks: readonly string[]): string[] | undefined {
  const pieces: string[] = []
  let rest = text
  for (const mark of marks) {
    const [piece, ...behind] = rest.split(mark)
    if (behind.length !== 1) return undefined
    pieces.push(piece!)
    rest = behind[0]!
  }
  return [...pieces, rest]
}

function withoutForm(how: string): EngineError {
  return new EngineError(
    'unsupported',
    'template_without_form',
    `The model's chat template ${how}, which Ollama's templates cannot say: export it as gguf, and write a Modelfile for it.`,
    { param: 'format' },
  )
}
