import { sequenceLogProbabilities, TRAINED, tokenLosses } from '../../nn/loss.ts'
import { floatTensor } from '../../tensor.ts'
import type { FeedbackExample } from '../../text/conversation.ts'
import { collate, labelFeeds } from '../batch.ts'
import type { TrainConfig } from '../config.ts'
import type { TokenBatch } from '../step.ts'
import { tally } from './metrics.ts'
import type { Objective } from './objective.ts'
import { sequenceWeights, trainedLengths } from './pairs.ts'

export type FeedbackConfig = Pick<
  TrainConfig,
  'pref_beta' | 'pref_ftx' | 'kto_chosen_weight' | 'kto_rejected_weight'
>

/** Answers with their verdicts; `unrelated` holds the same questions with answers that belong to other ones. */
export interface FeedbackBatch extends TokenBatch {
  desirable: readonly boolean[]
  unrelated?: FeedbackBatch
}

const ANSWERS = 'answers'

/**
 * Stage kto (arXiv:2402.01306) as TRL and LLaMA-Factory compute it: with Δ = log p - log p₀ of an answer's tokens, p₀ the
 * model that the run began with, and z = max(0, mean Δ of the unrelated answers), which carries no gradient, the loss of an
 * answer is λ_c · (1 - σ(β(Δ - z))) where it is desirable, and λ_r · (1 - σ(β(z - Δ))) where it is not.
 */
export function feedback(config: FeedbackConfig): Objective<FeedbackExample, FeedbackBatch> {
  const { pref_beta: beta } = config
  return {
    comparesWithStart: true,
    weigh: () => 1,
    collate(examples, padId) {
      const desirable = examples.map((example) => example.desirable)
      const unrelated = collate(
        examples.map((example) => example.unrelated),
        padId,
      )
      const answers = collate(
        examples.map((example) => example.answer),
        padId,
      )
      return { ...answers, desirable, unrelated: { ...unrelated, desirable } }
    },
    build(m, modelConfig, hidden, weight) {
      const { g } = m
      const losses = tokenLosses(m, modelConfig, hidden)
      const perAnswer = (name: string) => g.input(name, 'float32', [ANSWERS])
      const weights = g.input('answer_weights', 'float32', [ANSWERS, TRAINED])
      g.bindDim(ANSWERS, weights, 0)
      const answer = sequenceLogProbabilities(m, losses, weights)
      const moved = g.Sub(g.Sub(answer, perAnswer('start_answer')), g.input('divergence', 'float32', []))
      // 1 - σ(x) = σ(-x); `direction` is -β for desirable answers and β for the others
      const value = g.Mul(g.Sigmoid(g.Mul(moved, perAnswer('direction'))), perAnswer('answer_value'))
      const total = g.Sub(value, g.Mul(answer, perAnswer('learned_share')))
      return { loss: g.Mul(g.ReduceSum(total, [0], 0), weight), values: { answer } }
    },
    feeds(batch) {
      const { rows, desirable } = batch
      const perAnswer = (values: (row: number) => number) =>
        floatTensor(
          Float32Array.from({ length: rows }, (_, row) => values(row)),
          [rows],
        )
      const lengths = trainedLengths(batch)
      const chosen = desirable.filter(Boolean).length
      // LLaMA-Factory's scale of the chosen answers' own loss: its mean, over their number, times the batch size
      const ftx = chosen === 0 ? 0 : (config.pref_ftx * rows * rows) / chosen ** 2
      return {
        ...labelFeeds(batch),
        answer_weights: sequenceWeights(batch, 0, rows, false),
        direction: perAnswer((row) => (desirable[row] ? -beta : beta)),
        answer_value: perAnswer((row) =>
          desirable[row] ? config.kto_chosen_weight : config.kto_rejected_weight,
        ),
        learned_share: perAnswer((row) => (desirable[row] ? ftx / lengths[row]! : 0)),
        start_answer: perAnswer(() => 0),
        divergence: floatTensor(Float32Array.of(0), []),
      }
    },
    async prepare(batch, forward) {
      const unrelated = batch.unrelated!
      const now = (await forward(unrelated, 'current')).answer!
      const before = (await forward(unrelated, 'start')).answer!
      const moved = tally(now.map((value, row) => value - before[row]!))
      const start = (await forward(batch, 'start')).answer!
      return {
        start_answer: floatTensor(start, [batch.rows]),
        divergence: floatTensor(Float32Array.of(Math.max(0, moved.sum / moved.count)), []),
      }
    },
    metrics({ desirable }, { answer }, prepared) {
      const start = prepared.start_answer!.data as Float32Array
      const rewards = answer!.map((value, row) => beta * (value - start[row]!))
      const of = (values: Float32Array, kind: boolean) =>
        tally(values.filter((_, row) => desirable[row] === kind))
      return {
        'rewards/chosen': of(rewards, true),
        'rewards/rejected': of(rewards, false),
        'logps/chosen': of(answer!, true),
        'logps/rejected': of(answer!, false),
        kl: tally(prepared.divergence!.data as Float32Array),
      }
    },
  }
}
