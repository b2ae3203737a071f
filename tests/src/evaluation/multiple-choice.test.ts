import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  choiceMessages,
  choiceMetrics,
  choiceText,
  readChoiceTask,
} from '../../../src/evaluation/multiple-choice.ts'

let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'anneal-choice-'))
  for (const split of ['test', 'dev']) mkdirSync(join(folder, split))
})

afterEach(() => rmSync(folder, { recursive: true }))

const write = (path: string, content: string) => writeFileSync(join(folder, path), content)

describe('readChoiceTask', () => {
  it("reads MMLU's files, which have no header", () => {
    write('test/abstract_algebra_test.csv', '"Which, of these?",1,2,3,4,C\n')
    write('dev/abstract_algebra_dev.csv', 'What?,5,6,7,8,A\n')
    const task = readChoiceTask(folder, 'test')
    expect(task.questions).toEqual([
      {
        subject: 'abstract algebra',
        question: 'Which, of these?',
        choices: ['1', '2', '3', '4'],
        answer: 'C',
      },
    ])
    expect(task.examples.get('abstract algebra')).toHaveLength(1)
  })

  it("reads C-Eval's and CMMLU's files by their headers", () => {
    write('test/law_test.csv', 'id,question,A,B,C,D,answer,explanation\n0,哪个？,甲,乙,丙,丁,B,因为\n')
    write('test/art.csv', ',Question,A,B,C,D,Answer\n0,Which?,w,x,y,z,D\n')
    const { questions } = readChoiceTask(folder, 'test')
    expect(questions.map(({ subject, answer, choices }) => [subject, answer, choices[0]])).toEqual([
      ['art', 'D', 'w'],
      ['law', 'B', '甲'],
    ])
  })

  it('names file and line of a row that is no question', () => {
    write('test/law_test.csv', 'What?,1,2,3,4,A\nWhy?,1,2,3,4,E\n')
    expect(() => readChoiceTask(folder, 'test')).toThrow(/law_test\.csv line 2 is no question/)
  })

  it('says where a task without files is looked for', () => {
    expect(() => readChoiceTask(join(folder, 'absent'), 'test')).toThrow(/evaluation\/NAME\/SPLIT/)
  })
})

describe('choiceMessages', () => {
  it('puts the subject before the first example and asks for a letter last', () => {
    write('test/a_test.csv', 'Q1?,1,2,3,4,C\n')
    write('dev/a_dev.csv', 'E1?,5,6,7,8,A\nE2?,5,6,7,8,B\n')
    const task = readChoiceTask(folder, 'test')
    const messages = choiceMessages(task, task.questions[0]!, { shots: 1, language: 'en' })
    expect(messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'user'])
    expect(choiceText(messages)).toBe(
      'The following are multiple choice questions (with answers) about a.\n\n' +
        'E1?\nA. 5\nB. 6\nC. 7\nD. 8\nAnswer: A\n\nQ1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:',
    )
  })
})

describe('choiceMetrics', () => {
  it('counts all questions, and those of each group', () => {
    write('test/a_test.csv', 'Q?,1,2,3,4,C\n')
    write('test/b_test.csv', 'Q?,1,2,3,4,A\nQ?,1,2,3,4,B\n')
    const names = { a: { name: 'Algebra', category: 'STEM' }, b: { name: 'Baroque', category: 'Humanities' } }
    write('mapping.json', JSON.stringify(names))
    const task = readChoiceTask(folder, 'test')
    const predicted = ['C', 'A', 'D']
    const rows = task.questions.map(({ subject, answer }, index) => ({
      subject,
      answer,
      predicted: predicted[index]!,
    }))
    expect(choiceMetrics(rows, task)).toEqual({
      accuracy: 2 / 3,
      'accuracy/STEM': 1,
      'accuracy/Humanities': 1 / 2,
      questions: 3,
    })
  })
})
