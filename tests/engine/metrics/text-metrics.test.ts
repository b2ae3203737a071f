import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { characterBleu4 } from '../../../engine/metrics/bleu.ts'
import { rouge } from '../../../engine/metrics/rouge.ts'
import { meanScores, scoreText, segment } from '../../../engine/metrics/text-metrics.ts'
import { NEEDS_SHARED, SHARED, sharedMissing } from '../../shared.ts'

interface Case {
  predict: string
  label: string
  jieba_predict: string[]
  jieba_label: string[]
  'bleu-4': number
  'rouge-1': number
  'rouge-2': number
  'rouge-l': number
}

describe('scoreText', () => {
  it.skipIf(sharedMissing('golden/metrics.json'))(
    `equals nltk, jieba and rouge_chinese within 1e-3 ${NEEDS_SHARED}`,
    () => {
      const cases = JSON.parse(readFileSync(`${SHARED}golden/metrics.json`, 'utf8')) as Case[]
      for (const { predict, label, jieba_predict, jieba_label, ...scores } of cases) {
        expect(segment(predict)).toEqual(jieba_predict)
        expect(segment(label)).toEqual(jieba_label)
        const found = scoreText(predict, label)
        for (const [name, value] of Object.entries(scores)) {
          expect(found[name as keyof typeof found], `${name} of ${predict}`).toBeCloseTo(value, 3)
        }
      }
    },
  )

  it('equals them in texts of several sentences and paragraphs, whose blank lines are a word', () => {
    const file = new URL('./paragraphs.json', import.meta.url)
    for (const { predict, label, ...scores } of JSON.parse(readFileSync(file, 'utf8')) as Case[]) {
      expect(scoreText(predict, label), `${predict} and ${label}`).toEqual(scores)
    }
  })

  it('gives 100 to a text that equals its label', () => {
    const text = 'The library opens at nine.'
    expect(scoreText(text, text)).toEqual({ 'bleu-4': 100, 'rouge-1': 100, 'rouge-2': 100, 'rouge-l': 100 })
  })

  it('gives 0 to an empty text', () => {
    expect(scoreText('', 'something')).toEqual({ 'bleu-4': 0, 'rouge-1': 0, 'rouge-2': 0, 'rouge-l': 0 })
  })
})

describe('characterBleu4', () => {
  it('smooths the k-th empty order to 1 / (2^k · total)', () => {
    // 'ab' in 'ab': two of two characters, one of one pair, no triple, no quadruple.
    expect(characterBleu4('ab', 'ab')).toBeCloseTo((1 * 1 * (1 / 2) * (1 / 4)) ** (1 / 4), 12)
  })

  it('punishes a prediction that is shorter than its label', () => {
    expect(characterBleu4('abcd', 'abcdefgh')).toBeCloseTo(Math.exp(1 - 8 / 4), 12)
  })
})

describe('rouge', () => {
  it('counts a repeated word once for ROUGE-1 and in order for ROUGE-L', () => {
    const { rouge1, rougeL } = rouge(['a', 'a', 'b'], ['a', 'b', 'b'])
    expect(rouge1).toBeCloseTo(1, 6)
    expect(rougeL).toBeCloseTo(2 / 3, 6)
  })
})

describe('meanScores', () => {
  it('names the means as predict_…', () => {
    const rows = [scoreText('same', 'same'), scoreText('', 'same')]
    expect(meanScores(rows)['predict_rouge-1']).toBe(50)
  })
})
