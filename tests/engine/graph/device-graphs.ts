import { buildDecoderGraph } from '../../../engine/generate/decoder-graph.ts'
import type { OpenModel } from '../../../engine/models/index.ts'
import { buildStepGraph } from '../../../engine/train/step-graph.ts'

/** What a model runs for training, evaluation and answers, in the forms that devices get. */
export function graphsOf(model: OpenModel) {
  const lora = { kind: 'lora', rank: 4, scale: 2, dropout: 0.1, targets: 'all', dora: true } as const
  const initialize = (_: string, shape: readonly number[]) =>
    new Float32Array(shape.reduce((a, b) => a * b, 1))
  const options = { maxLength: 32, lossChunks: 2, checkpointing: true, initialize }
  return {
    'a LoRA step': buildStepGraph(model, { ...options, method: lora }, 'training').graph,
    'a LoRA step with fp16': buildStepGraph(
      model,
      { ...options, method: lora, checkpointing: false, halfActivations: true },
      'training',
    ).graph,
    'a full step': buildStepGraph(model, { ...options, method: { kind: 'full' } }, 'training').graph,
    evaluation: buildStepGraph(model, { ...options, method: lora }, 'evaluation').graph,
    decoding: buildDecoderGraph(model, { maxPositions: 32, adapters: 'none', residentCache: true }).graph,
    'decoding with adapters': buildDecoderGraph(model, {
      maxPositions: 32,
      adapters: 'scaled',
      residentCache: true,
    }).graph,
  }
}
