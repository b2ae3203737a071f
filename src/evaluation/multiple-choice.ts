import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { parse } from 'csv-parse/sync'
import { z } from 'zod'
import { EngineError } from '../../engine/errors.ts'
import { type TooLong, tooLongMetric } from './too-long.ts'

export const LETTERS = ['A', 'B', 'C', 'D'] as const
export type Letter = (typeof LETTERS)[number]

export interface ChoiceQuestion {
  subject: string
  question: string
  /** In the order of LETTERS. */
  choices: readonly string[]
  answer: Letter
}

/** A task as its files hold it: the questions, and examples for each subject from its dev split. */
export interface ChoiceTask {
  questions: ChoiceQuestion[]
  examples: Map<string, ChoiceQuestion[]>
  /** The group that a subject counts for besides the total, such as STEM. */
  groupOf(subject: string): string | undefined
}

const mapping = z.record(z.string(), z.object({ name: z.string(), category: z.string() }))

/**
 * Reads a task's CSV files from `FOLDER/SPLIT/*.csv`, one subject each, in the forms of MMLU (no header: question, A, B,
 * C, D, answer), C-Eval and CMMLU (a header that names the columns). The split `dev` gives the examples; an optional
 * mapping.json names subjects and their groups, as LLaMA-Factory's does.
 *
 * @throws EngineError `not_found` without such files, `malformed_row` with the file and line of a row that is no question.
 */
export function readChoiceTask(folder: string, split: string): ChoiceTask {
  const files = csvFiles(join(folder, split))
  if (files.length === 0) {
    throw new EngineError(
      'not_found',
      'task_not_found',
      `${join(basename(folder), split)} has no CSV file. A task lies in evaluation/NAME/SPLIT/*.csv of the datasets folder.`,
      { param: 'task' },
    )
  }
  const map = join(folder, 'mapping.json')
  const subjects = existsSync(map) ? mapping.parse(JSON.parse(readFileSync(map, 'utf8'))) : {}
  const read = (file: string) => {
    const key = subjectOf(file)
    return readQuestions(file, subjects[key]?.name ?? key.replaceAll('_', ' '))
  }
  const groups = new Map(Object.values(subjects).map(({ name, category }) => [name, category]))
  const examples = new Map<string, ChoiceQuestion[]>()
  for (const file of split === 'dev' ? [] : csvFiles(join(folder, 'dev'))) {
    const rows = read(file)
    if (rows[0]) examples.set(rows[0].subject, rows)
  }
  return { questions: files.flatMap(read), examples, groupOf: (subject) => groups.get(subject) }
}

/** The prompts of MMLU (Hendrycks et al. 2020, arXiv:2009.03300) and their Chinese counterparts. */
const PROMPTS = {
  en: {
    system: (subject: string) =>
      `The following are multiple choice questions (with answers) about ${subject}.\n\n`,
    answer: '\nAnswer:',
  },
  zh: {
    system: (subject: string) => `以下是中国关于${subject}考试的单项选择题，请选出其中的正确答案。\n\n`,
    answer: '\n答案：',
  },
} as const

/** A question with its examples, as the turns of a conversation. */
export function choiceMessages(
  task: ChoiceTask,
  question: ChoiceQuestion,
  { shots, language }: { shots: number; language: keyof typeof PROMPTS },
): { role: 'user' | 'assistant'; content: string }[] {
  const { system, answer } = PROMPTS[language]
  const ask = ({ question: text, choices }: ChoiceQuestion) =>
    text + choices.map((choice, index) => `\n${LETTERS[index]}. ${choice}`).join('') + answer
  const examples = (task.examples.get(question.subject) ?? []).slice(0, shots)
  const turns = examples.flatMap((example) => [
    { role: 'user' as const, content: ask(example) },
    { role: 'assistant' as const, content: example.answer as string },
  ])
  const messages = [...turns, { role: 'user' as const, content: ask(question) }]
  const [first, ...rest] = messages
  return [{ ...first!, content: system(question.subject) + first!.content }, ...rest]
}

/** The same as one text, for models without a chat template. */
export function choiceText(messages: ReturnType<typeof choiceMessages>): string {
  return messages.map(({ role, content }) => (role === 'assistant' ? ` ${content}\n\n` : content)).join('')
}

export interface ChoiceRow extends TooLong {
  subject: string
  predicted: string
  answer: Letter
}

/** `accuracy` over all questions (one that is too long was not answered rightly), and `accuracy/GROUP` over those of each group. */
export function choiceMetrics(rows: readonly ChoiceRow[], task: ChoiceTask): Record<string, number> {
  const shares = new Map<string, { right: number; total: number }>()
  for (const { subject, predicted, answer } of rows) {
    const group = task.groupOf(subject)
    for (const name of ['accuracy', ...(group === undefined ? [] : [`accuracy/${group}`])]) {
      const share = shares.get(name) ?? { right: 0, total: 0 }
      share.total++
      if (predicted === answer) share.right++
      shares.set(name, share)
    }
  }
  const metrics = [...shares].map(([name, { right, total }]) => [name, right / total])
  return { ...Object.fromEntries(metrics), questions: rows.length, ...tooLongMetric('too_long', rows) }
}

function csvFiles(folder: string): string[] {
  if (!existsSync(folder)) return []
  const names = readdirSync(folder).filter((name) => name.endsWith('.csv'))
  return names.sort().map((name) => join(folder, name))
}

/** 'abstract_algebra' of abstract_algebra_test.csv. */
function subjectOf(file: string): string {
  return basename(file, '.csv').replace(/_(test|val|dev)$/, '')
}

const COLUMNS = ['question', 'a', 'b', 'c', 'd', 'answer'] as const

function readQuestions(file: string, subject: string): ChoiceQuestion[] {
  const rows: string[][] = parse(readFileSync(file), {
    bom: true,
    skip_empty_lines: true,
    relax_column_count: true,
  })
  const header = rows[0]?.map((name) => name.trim().toLowerCase()) ?? []
  const named = COLUMNS.every((column) => header.includes(column))
  const places = named ? COLUMNS.map((column) => header.indexOf(column)) : COLUMNS.map((_, index) => index)
  return rows.slice(named ? 1 : 0).map((row, index) => {
    const cells = places.map((place) => row[place]?.trim())
    const [question, a, b, c, d, answer] = cells
    if (cells.some((cell) => cell === undefined) || !isLetter(answer)) {
      throw new EngineError(
        'invalid',
        'malformed_row',
        `${basename(file)} line ${index + (named ? 2 : 1)} is no question: it needs ${COLUMNS.join(', ')} with an answer ` +
          `of ${LETTERS.join(', ')}, and has ${JSON.stringify(row).slice(0, 120)}.`,
        { param: 'task' },
      )
    }
    return { subject, question: question!, choices: [a!, b!, c!, d!], answer }
  })
}

function isLetter(text: string | undefined): text is Letter {
  return LETTERS.some((letter) => letter === text)
}
