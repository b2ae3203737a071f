const ORDERS = [1, 2, 3, 4] as const

/**
 * BLEU-4 of one prediction over characters, 0 to 1: uniform weights, clipped counts, and Chen and Cherry's smoothing
 * method 3 (2014, "A Systematic Comparison of Smoothing Techniques for Sentence-Level BLEU", section 4.3), as
 * LLaMA-Factory computes it with nltk. A prediction that shares no character with the label scores 0.
 */
export function characterBleu4(predicted: string, label: string): number {
  const prediction = [...predicted]
  const reference = [...label]
  const precisions = ORDERS.map((order) => clippedPrecision(prediction, reference, order))
  if (precisions[0]!.matches === 0) return 0
  const logarithms = smooth(precisions).map((precision) => Math.log(precision) / ORDERS.length)
  return brevityPenalty(prediction.length, reference.length) * Math.exp(logarithms.reduce((a, b) => a + b))
}

interface Precision {
  matches: number
  total: number
}

/** How many of the prediction's n-grams the reference has too, each at most as often as there. */
function clippedPrecision(
  prediction: readonly string[],
  reference: readonly string[],
  order: number,
): Precision {
  const allowed = countNgrams(reference, order)
  let matches = 0
  for (const [ngram, count] of countNgrams(prediction, order)) {
    matches += Math.min(count, allowed.get(ngram) ?? 0)
  }
  return { matches, total: Math.max(1, prediction.length - order + 1) }
}

function countNgrams(tokens: readonly string[], order: number): Map<string, number> {
  const counts = new Map<string, number>()
  for (let start = 0; start + order <= tokens.length; start++) {
    const ngram = tokens.slice(start, start + order).join('\u0000')
    counts.set(ngram, (counts.get(ngram) ?? 0) + 1)
  }
  return counts
}

/** The k-th order without a match counts as 1 / (2^k · total), k = 1, 2, … */
function smooth(precisions: readonly Precision[]): number[] {
  let empty = 0
  return precisions.map(({ matches, total }) => {
    if (matches > 0) return matches / total
    empty++
    return 1 / (2 ** empty * total)
  })
}

/** exp(1 - r/c) where the candidate's length c is not above the reference's r, else 1. */
function brevityPenalty(candidate: number, reference: number): number {
  if (candidate > reference) return 1
  return candidate === 0 ? 0 : Math.exp(1 - reference / candidate)
}
