import { join } from 'node:path'
import { resolveChatTemplate } from '../../engine/text/chat-template.ts'
import { encodePieces } from '../../engine/text/pieces.ts'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'
import {
  type ChoiceQuestion,
  type ChoiceRow,
  choiceMessages,
  choiceMetrics,
  choiceText,
  LETTERS,
  readChoiceTask,
} from './multiple-choice.ts'
import { fillRows } from './row-file.ts'
import type { EvaluatedModel, EvaluationTask, ModelEvaluation } from './task.ts'
import { unlessTooLong } from './too-long.ts'

/** Large enough that no other token can win; the letters keep their order among themselves. */
const LETTER_BIAS = 100

/** 'mmlu' and 'test' of mmlu_test. */
export function parseTask(task: string): { name: string; split: string } {
  const at = task.lastIndexOf('_')
  return { name: task.slice(0, at), split: task.slice(at + 1) }
}

/** Lets models answer a task's questions: the letter with the largest log-probability after the prompt is their answer. */
export function answerChoices({ request, datasetDir }: EvaluationTask) {
  const { name, split } = parseTask(request.task!)
  const task = readChoiceTask(join(datasetDir, 'evaluation', name), split)
  const questions = task.questions.slice(0, request.max_samples)
  const form = { shots: request.n_shot, language: request.lang }
  return async (
    { model, folder, hosts, signal, stages }: ModelEvaluation,
    concurrency: number,
  ): Promise<Record<string, number>> => {
    const { promptOf, letterOf, logitBias } = answering(model, request.template)
    const choose = async (question: ChoiceQuestion): Promise<string> => {
      const { baseFolder, adapterFolder } = model
      const prompt = promptOf(choiceMessages(task, question, form))
      const sampling = { temperature: 0, maxTokens: 1, logitBias, logprobs: 0 }
      const events = hosts.generate({ baseFolder, adapterFolder, prompt, ...sampling }, signal)
      let predicted = ''
      for await (const event of events) {
        if (event.type === 'text') predicted = letterOf(event.logprobs?.[0]?.id) ?? predicted
      }
      return predicted
    }
    const answer = async (question: ChoiceQuestion): Promise<ChoiceRow> => {
      const { subject, answer } = question
      const row = choose(question).then((predicted): ChoiceRow => ({ subject, predicted, answer }))
      return unlessTooLong(row, { subject, predicted: '', answer, too_long: true })
    }
    const onRow = stages.next(`${model.id}: questions`, questions.length)
    const rows = await fillRows(join(folder, 'choices.jsonl'), questions, answer, {
      concurrency,
      signal,
      onRow,
    })
    return choiceMetrics(rows, task)
  }
}

/** How a model is asked: through its chat template where it has one, else with one text. */
function answering({ baseFolder, template: trained }: EvaluatedModel, asked?: string) {
  const tokenizer = loadTokenizer(baseFolder)
  const template = resolveChatTemplate(tokenizer, asked ?? trained)
  const plain = template.warning !== undefined
  const ids = LETTERS.map((letter) => tokenizer.encode(plain ? ` ${letter}` : letter).at(-1)!)
  return {
    promptOf: (messages: ReturnType<typeof choiceMessages>) => {
      if (plain) return [...tokenizer.encode(choiceText(messages))]
      return [...encodePieces(template.pieces(messages, { addGenerationPrompt: true }), tokenizer)]
    },
    letterOf: (id: number | undefined) => LETTERS.find((_, index) => ids[index] === id),
    logitBias: Object.fromEntries(ids.map((id) => [String(id), LETTER_BIAS])),
  }
}
