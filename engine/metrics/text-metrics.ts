import { Jieba } from '@node-rs/jieba'
import { dict } from '@node-rs/jieba/dict.js'
import { characterBleu4 } from './bleu.ts'
import { rouge } from './rouge.ts'

/** How close a generated text comes to the wanted one, in percent, under the names of LLaMA-Factory's results. */
export interface TextScores {
  'bleu-4': number
  'rouge-1': number
  'rouge-2': number
  'rouge-l': number
}

let segmenter: Jieba | undefined

/** Words of a text in any language: Chinese by jieba's dictionary, others at spaces and marks. */
export function segment(text: string): string[] {
  segmenter ??= Jieba.withDict(dict)
  return segmenter.cut(text, true)
}

/** BLEU-4 over characters and ROUGE over jieba's words, each rounded to four places as LLaMA-Factory does per row. */
export function scoreText(predicted: string, label: string): TextScores {
  const { rouge1, rouge2, rougeL } = rouge(segment(predicted), segment(label))
  return {
    'bleu-4': percent(characterBleu4(predicted, label)),
    'rouge-1': percent(rouge1),
    'rouge-2': percent(rouge2),
    'rouge-l': percent(rougeL),
  }
}

/** Means of the rows' scores as `predict_bleu-4`, `predict_rouge-1` … */
export function meanScores(rows: readonly TextScores[]): Record<string, number> {
  const names = ['bleu-4', 'rouge-1', 'rouge-2', 'rouge-l'] as const
  const mean = (name: (typeof names)[number]) => rows.reduce((sum, row) => sum + row[name], 0) / rows.length
  return Object.fromEntries(names.map((name) => [`predict_${name}`, rows.length === 0 ? 0 : mean(name)]))
}

function percent(share: number): number {
  return Number((share * 100).toFixed(4))
}
