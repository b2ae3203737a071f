import { tokenScores } from '../../nn/loss.ts'
import type { EncodedExample } from '../../text/conversation.ts'
import { collate, labelFeeds, trainedTokenCount } from '../batch.ts'
import { tally } from './metrics.ts'
import type { Objective } from './objective.ts'

/** Stages pt and sft: the mean of -log p(token) over the trained tokens. */
export const languageModel: Objective<EncodedExample> = {
  comparesWithStart: false,
  weigh: trainedTokenCount,
  collate,
  build(m, config, hidden, weight) {
    const { losses } = tokenScores(m, config, hidden)
    return { loss: m.g.Mul(m.g.ReduceSum(losses, [0], 0), weight), values: {} }
  },
  feeds: labelFeeds,
}

/** The same, and how many of the trained tokens are the model's own first choice. */
export const languageModelWithAccuracy: Objective<EncodedExample> = {
  ...languageModel,
  build(m, config, hidden, weight) {
    const { losses, correct } = tokenScores(m, config, hidden)
    return { loss: m.g.Mul(m.g.ReduceSum(losses, [0], 0), weight), values: { correct } }
  },
  metrics: (_batch, { correct }) => ({ accuracy: tally(correct!) }),
}
