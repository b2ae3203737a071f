import { negativeLogSigmoid } from '../../nn/loss.ts'
import { createRandom } from '../../random.ts'
import { intTensor } from '../../tensor.ts'
import type { EncodedExample, PairExample } from '../../text/conversation.ts'
import { collate } from '../batch.ts'
import { tally } from './metrics.ts'
import type { Objective } from './objective.ts'
import type { PairBatch } from './pairs.ts'

const PAIRS = 'pairs'
/** TRL's names of the value head's tensors. */
const VALUE_HEAD = { weight: 'v_head.summary.weight', bias: 'v_head.summary.bias' } as const
/** Apart from the streams of LoRA's matrices, which count from 1, and of dropout. */
const VALUE_HEAD_STREAM = 0xfffffffe

/**
 * Stage rm: a linear value head scores the last token of each answer, and the loss of a pair is -log σ(chosen - rejected)
 * (LLaMA-Factory's train/rm/trainer.py; its head drops a tenth of its inputs, this one none). The bias cancels out in the
 * loss and stays zero; it exists for the file's sake.
 */
export const reward: Objective<PairExample, PairBatch> = {
  comparesWithStart: false,
  weigh: () => 1,
  collate(examples, padId) {
    const sequences = [...examples.map(({ chosen }) => chosen), ...examples.map(({ rejected }) => rejected)]
    const batch = collate(sequences, padId)
    const scored = sequences.map(({ inputIds }, row) => BigInt(row * batch.length + inputIds.length - 1))
    const labels = sequences.map(({ inputIds }: EncodedExample) => BigInt(inputIds.at(-1)!))
    return {
      ...batch,
      trainedPositions: BigInt64Array.from(scored),
      labels: BigInt64Array.from(labels),
      pairs: examples.length,
    }
  },
  build(m, config, hidden, weight) {
    const { g } = m
    const head = m.newParameter(VALUE_HEAD.weight, [1, config.hiddenSize])
    const bias = m.newParameter(VALUE_HEAD.bias, [1])
    const score = (name: string) => {
      const rows = g.input(`${name}_rows`, 'int64', [PAIRS])
      if (name === 'chosen') g.bindDim(PAIRS, rows, 0)
      return g.Reshape(g.Add(g.Gemm(g.Gather(hidden, rows), head, { transB: 1 }), bias), [PAIRS])
    }
    const [chosen, rejected] = [score('chosen'), score('rejected')]
    const losses = negativeLogSigmoid(m, g.Sub(chosen, rejected))
    return { loss: g.Mul(g.ReduceSum(losses, [0], 0), weight), values: { chosen, rejected } }
  },
  feeds({ trainedPositions, pairs }) {
    return {
      chosen_rows: intTensor(trainedPositions.slice(0, pairs), [pairs]),
      rejected_rows: intTensor(trainedPositions.slice(pairs), [pairs]),
    }
  },
  metrics(_batch, { chosen, rejected }) {
    return {
      'rewards/chosen': tally(chosen!),
      'rewards/rejected': tally(rejected!),
      'rewards/accuracies': tally(chosen!.map((score, pair) => (score > rejected![pair]! ? 1 : 0))),
    }
  },
  /** PyTorch's start of a linear layer: the weight uniform in ±1/√width; the bias zero, since nothing would move it. */
  initialize(name, shape, seed) {
    if (name === VALUE_HEAD.bias) return new Float32Array(1)
    if (name !== VALUE_HEAD.weight) return undefined
    const random = createRandom(seed, VALUE_HEAD_STREAM)
    const bound = 1 / Math.sqrt(shape[1]!)
    return Float32Array.from({ length: shape[1]! }, () => bound * (2 * random.next() - 1))
  },
}
