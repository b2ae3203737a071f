import type { Value } from '../../graph/values.ts'
import { negativeLogSigmoid, sequenceLogProbabilities, TRAINED, tokenLosses } from '../../nn/loss.ts'
import type { ModelBuilder } from '../../nn/model-builder.ts'
import { floatTensor } from '../../tensor.ts'
import type { PairExample } from '../../text/conversation.ts'
import { labelFeeds } from '../batch.ts'
import type { TrainConfig } from '../config.ts'
import { comparesWithStart } from './compares-with-start.ts'
import { tally } from './metrics.ts'
import type { Feeds, Objective, Values } from './objective.ts'
import { collatePairs, type PairBatch, sequenceWeights, trainedLengths } from './pairs.ts'

export type PreferenceConfig = Pick<
  TrainConfig,
  'pref_loss' | 'pref_beta' | 'pref_ftx' | 'dpo_label_smoothing' | 'simpo_gamma'
>

const PAIRS = 'pairs'
/** Losses of mean log-probabilities per token instead of their sums. */
const AVERAGED: ReadonlySet<string> = new Set(['ipo', 'orpo', 'simpo'])

/** log p of both answers of each pair under the policy and under the model that the run began with, all [pairs]. */
interface PairLogProbabilities {
  chosen: Value
  rejected: Value
  startChosen: Value
  startRejected: Value
}

/**
 * Stage dpo: the losses that LLaMA-Factory offers as pref_loss (train/dpo/trainer.py), plus pref_ftx times the chosen
 * answer's mean loss per token. An example counts once, however long its answers are.
 */
export function preference(config: PreferenceConfig): Objective<PairExample, PairBatch> {
  const { pref_loss: kind, pref_beta: beta } = config
  const averaged = AVERAGED.has(kind)
  const compares = comparesWithStart({ stage: 'dpo', pref_loss: kind })
  return {
    comparesWithStart: compares,
    weigh: () => 1,
    collate: collatePairs,
    build(m, modelConfig, hidden, weight) {
      const { g } = m
      const losses = tokenLosses(m, modelConfig, hidden)
      const chosenWeights = g.input('chosen_weights', 'float32', [PAIRS, TRAINED])
      const rejectedWeights = g.input('rejected_weights', 'float32', [PAIRS, TRAINED])
      g.bindDim(PAIRS, chosenWeights, 0)
      const chosen = sequenceLogProbabilities(m, losses, chosenWeights)
      const rejected = sequenceLogProbabilities(m, losses, rejectedWeights)
      const share = g.input('chosen_share', 'float32', [PAIRS])
      const start = compares
        ? {
            startChosen: g.input('start_chosen', 'float32', [PAIRS]),
            startRejected: g.input('start_rejected', 'float32', [PAIRS]),
          }
        : { startChosen: g.scalar(0), startRejected: g.scalar(0) }
      const pairLoss = LOSSES[kind](m, { chosen, rejected, ...start }, config)
      // -log p(chosen) per token; it is only read where pref_ftx asks for it
      const chosenLoss = g.Neg(g.Mul(chosen, share))
      const total = g.Add(pairLoss, g.Mul(chosenLoss, g.scalar(config.pref_ftx)))
      return { loss: g.Mul(g.ReduceSum(total, [0], 0), weight), values: { chosen, rejected } }
    },
    feeds(batch) {
      const { pairs } = batch
      const lengths = trainedLengths(batch)
      const share = Float32Array.from({ length: pairs }, (_, pair) => (averaged ? 1 : 1 / lengths[pair]!))
      const zeros = floatTensor(new Float32Array(pairs), [pairs])
      return {
        ...labelFeeds(batch),
        chosen_weights: sequenceWeights(batch, 0, pairs, averaged),
        rejected_weights: sequenceWeights(batch, pairs, pairs, averaged),
        chosen_share: floatTensor(share, [pairs]),
        ...(compares ? { start_chosen: zeros, start_rejected: zeros } : {}),
      }
    },
    async prepare(batch, forward): Promise<Feeds> {
      if (!compares) return {}
      const { chosen, rejected } = await forward(batch, 'start')
      return {
        start_chosen: floatTensor(chosen!, [batch.pairs]),
        start_rejected: floatTensor(rejected!, [batch.pairs]),
      }
    },
    metrics(_batch, values, prepared) {
      const chosen = rewards(values.chosen!, prepared.start_chosen?.data, beta)
      const rejected = rewards(values.rejected!, prepared.start_rejected?.data, beta)
      return {
        'rewards/chosen': tally(chosen),
        'rewards/rejected': tally(rejected),
        'rewards/accuracies': tally(chosen.map((reward, pair) => (reward > rejected[pair]! ? 1 : 0))),
        'logps/chosen': tally(values.chosen!),
        'logps/rejected': tally(values.rejected!),
        ...(kind === 'orpo' ? oddsMetrics(values) : {}),
      }
    },
  }
}

type PairLoss = (m: ModelBuilder, logProbabilities: PairLogProbabilities, config: PreferenceConfig) => Value

/** The loss of each pair, [pairs]. c and r are log p of the chosen and the rejected answer, c₀ and r₀ those at the start. */
const LOSSES: Readonly<Record<TrainConfig['pref_loss'], PairLoss>> = {
  // (1 - ε)·-log σ(βΔ) + ε·-log σ(-βΔ) with Δ = (c - r) - (c₀ - r₀)  (DPO, arXiv:2305.18290; ε: cDPO)
  sigmoid(m, logProbabilities, { pref_beta: beta, dpo_label_smoothing: smoothing }) {
    const { g } = m
    const scaled = g.Mul(logRatio(m, logProbabilities), g.scalar(beta))
    const loss = negativeLogSigmoid(m, scaled)
    if (smoothing === 0) return loss
    const flipped = negativeLogSigmoid(m, g.Neg(scaled))
    return g.Add(g.Mul(loss, g.scalar(1 - smoothing)), g.Mul(flipped, g.scalar(smoothing)))
  },
  // max(0, 1 - βΔ)  (SLiC, arXiv:2305.10425)
  hinge(m, logProbabilities, { pref_beta: beta }) {
    const { g } = m
    const scaled = g.Mul(logRatio(m, logProbabilities), g.scalar(beta))
    return g.Relu(g.Sub(g.scalar(1), scaled))
  },
  // (Δ - 1 / 2β)² of means per token  (IPO, arXiv:2310.12036)
  ipo(m, logProbabilities, { pref_beta: beta }) {
    const { g } = m
    const difference = g.Sub(logRatio(m, logProbabilities), g.scalar(1 / (2 * beta)))
    return g.Mul(difference, difference)
  },
  // -c - β·log σ(log odds(c) - log odds(r)) of means per token, log odds(x) = x - log(1 - exp(x))  (ORPO, arXiv:2403.07691)
  orpo(m, { chosen, rejected }, { pref_beta: beta }) {
    const { g } = m
    const logOdds = (x: Value) => g.Sub(x, g.Log(g.Sub(g.scalar(1), g.Exp(x))))
    const oddsRatioLoss = negativeLogSigmoid(m, g.Sub(logOdds(chosen), logOdds(rejected)))
    return g.Sub(g.Mul(oddsRatioLoss, g.scalar(beta)), chosen)
  },
  // -log σ(β(c - r) - γ) of means per token  (SimPO, arXiv:2405.14734)
  simpo(m, { chosen, rejected }, { pref_beta: beta, simpo_gamma: gamma }) {
    const { g } = m
    const scaled = g.Mul(g.Sub(chosen, rejected), g.scalar(beta))
    return negativeLogSigmoid(m, g.Sub(scaled, g.scalar(gamma)))
  },
}

function logRatio(
  { g }: ModelBuilder,
  { chosen, rejected, startChosen, startRejected }: PairLogProbabilities,
): Value {
  return g.Sub(g.Sub(chosen, rejected), g.Sub(startChosen, startRejected))
}

/** β(log p - log p at the start), or β·log p where the loss compares with no other model. */
function rewards(
  logProbabilities: Float32Array,
  start: ArrayLike<unknown> | undefined,
  beta: number,
): Float32Array {
  const reference = start as Float32Array | undefined
  return logProbabilities.map((value, index) => beta * (value - (reference?.[index] ?? 0)))
}

function oddsMetrics({ chosen, rejected }: Values) {
  const logOdds = (x: number) => x - Math.log1p(-Math.exp(x))
  const odds = chosen!.map((c, pair) => Math.log1p(Math.exp(-(logOdds(c) - logOdds(rejected![pair]!)))))
  return { sft_loss: tally(chosen!.map((value) => -value)), odds_ratio_loss: tally(odds) }
}
