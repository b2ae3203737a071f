export interface RougeScores {
  rouge1: number
  rouge2: number
  rougeL: number
}

/**
 * ROUGE-1, ROUGE-2 and ROUGE-L of one prediction, 0 to 1, as rouge_chinese gives them to LLaMA-Factory: f-measures
 * over the SETS of n-grams for the first two, over the longest common subsequence of the words for the last. Where
 * either side is blank, all are 0.
 */
export function rouge(predicted: readonly string[], label: readonly string[]): RougeScores {
  const prediction = words(predicted)
  const reference = words(label)
  if (prediction.length === 0 || reference.length === 0) return { rouge1: 0, rouge2: 0, rougeL: 0 }
  return {
    rouge1: ngramOverlap(prediction, reference, 1),
    rouge2: ngramOverlap(prediction, reference, 2),
    rougeL: fMeasure(commonSubsequence(prediction, reference), prediction.length, reference.length),
  }
}

const WHITE_SPACE = /\p{White_Space}+/u
const TRAILING_SPACE = /\p{White_Space}+$/u

/** Where a sentence ends, by rouge_chinese's cut_sent: behind the first group, in this order. */
const SENTENCE_ENDS = [
  /([。！？?])([^”’])/gu,
  /(\.{6})([^”’])/gu,
  /(…{2})([^”’])/gu,
  /([。！？?][”’])([^，。！？?])/gu,
]

/**
 * The words of the segments, as rouge_chinese parts them: segments are joined with spaces and cut into sentences, at line
 * breaks too, and each sentence into words. A sentence of white space alone, such as a blank line, is one empty word.
 */
function words(segments: readonly string[]): string[] {
  const text = segments.join(' ')
  const isBlank = text.split(WHITE_SPACE).every((word) => word === '')
  if (isBlank) return []
  const cut = SENTENCE_ENDS.reduce((sofar, end) => sofar.replace(end, '$1\n$2'), text)
  const sentences = cut.replace(TRAILING_SPACE, '').split('\n')
  return sentences
    .filter((sentence) => sentence !== '')
    .flatMap((sentence) => {
      const found = sentence.split(WHITE_SPACE).filter(Boolean)
      return found.length > 0 ? found : ['']
    })
}

function ngramOverlap(prediction: readonly string[], reference: readonly string[], order: number): number {
  const predicted = ngrams(prediction, order)
  const wanted = ngrams(reference, order)
  let overlap = 0
  for (const ngram of predicted) if (wanted.has(ngram)) overlap++
  return fMeasure(overlap, predicted.size, wanted.size)
}

function ngrams(tokens: readonly string[], order: number): Set<string> {
  const count = Math.max(0, tokens.length - order + 1)
  return new Set(Array.from({ length: count }, (_, start) => tokens.slice(start, start + order).join(' ')))
}

/** 2pr / (p + r + 1e-8) with p and r the shares of the prediction's and the reference's items that are common. */
function fMeasure(common: number, predicted: number, wanted: number): number {
  const precision = predicted === 0 ? 0 : common / predicted
  const recall = wanted === 0 ? 0 : common / wanted
  return (2 * precision * recall) / (precision + recall + 1e-8)
}

/** Length of the longest common subsequence, in one row of memory. */
function commonSubsequence(left: readonly string[], right: readonly string[]): number {
  const row = new Uint32Array(right.length + 1)
  for (const token of left) {
    let diagonal = 0
    for (let column = 1; column <= right.length; column++) {
      const above = row[column]!
      row[column] = token === right[column - 1] ? diagonal + 1 : Math.max(above, row[column - 1]!)
      diagonal = above
    }
  }
  return row[right.length]!
}
