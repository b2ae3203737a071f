import { createRandom } from '../../../engine/random.ts'
import { type EncodedExample, IGNORE_INDEX } from '../../../engine/text/conversation.ts'
import type { TokenBatch, TrainStep } from '../../../engine/train/step.ts'

const VOCABULARY = 7
export const PAD = 0

/** A bigram model, softmax(table[previous] + bias), whose loss and gradients are computed right here. */
export function bigramStep(options: { dropout?: number; nanAt?: number } = {}): TrainStep {
  const random = createRandom(1)
  const table = Float32Array.from({ length: VOCABULARY ** 2 }, () => random.next() - 0.5)
  const bias = new Float32Array(VOCABULARY)
  let calls = 0

  const forward = (batch: TokenBatch, weight: number, keep: () => number) => {
    const gradients = [new Float32Array(table.length), new Float32Array(bias.length)] as const
    let loss = 0
    for (const [index, position] of batch.trainedPositions.entries()) {
      const row = Number(batch.inputIds[Number(position)]) * VOCABULARY
      const label = Number(batch.labels[index])
      const kept = keep()
      const scores = Array.from(bias, (b, j) => Math.exp(kept * table[row + j]! + b))
      const total = scores.reduce((sum, score) => sum + score)
      loss -= weight * Math.log(scores[label]! / total)
      for (const [j, score] of scores.entries()) {
        const gradient = weight * (score / total - (j === label ? 1 : 0))
        gradients[0][row + j]! += kept * gradient
        gradients[1][j]! += gradient
      }
    }
    return { loss, gradients: [...gradients] }
  }

  return {
    parameters: [
      { name: 'table.weight', shape: [VOCABULARY, VOCABULARY], data: table },
      { name: 'head.bias', shape: [VOCABULARY], data: bias },
    ],
    async run(batch, weight, dropoutSeed = 0) {
      const dropout = createRandom(dropoutSeed)
      const p = options.dropout ?? 0
      const result = forward(batch, weight, () => (dropout.next() < p ? 0 : 1 / (1 - p)))
      calls++
      return calls === options.nanAt ? { ...result, loss: Number.NaN } : result
    },
    async evaluate(batch, weight) {
      return { loss: forward(batch, weight, () => 1).loss }
    },
    async release() {},
  }
}

/** Examples of unequal lengths; the first token of each is not learned. */
export function randomExamples(count: number, seed = 3): EncodedExample[] {
  const random = createRandom(seed)
  return Array.from({ length: count }, () => {
    const inputIds = Int32Array.from(
      { length: 3 + random.nextInt(6) },
      () => 1 + random.nextInt(VOCABULARY - 1),
    )
    const labels = Int32Array.from(inputIds)
    labels[1] = IGNORE_INDEX
    return { inputIds, labels }
  })
}
