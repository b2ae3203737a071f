import { tokenLosses } from '../../nn/loss.ts'
import { collate, labelFeeds, trainedTokenCount } from '../../text/batch.ts'
import type { EncodedExample } from '../../text/conversation.ts'
import type { Objective } from './objective.ts'

/** Stages pt and sft: the mean of -log p(token) over the trained tokens. */
export const languageModel: Objective<EncodedExample> = {
  comparesWithStart: false,
  weigh: trainedTokenCount,
  collate,
  build(m, config, hidden, weight) {
    const losses = tokenLosses(m, config, hidden)
    return { loss: m.g.Mul(m.g.ReduceSum(losses, [0], 0), weight), values: {} }
  },
  feeds: labelFeeds,
}
