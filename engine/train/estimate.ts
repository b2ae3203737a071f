import { EngineError } from '../errors.ts'
import type { DecoderConfig } from '../models/config.ts'
import type { TrainConfig } from './config.ts'

/** What the estimate needs to know of a model. */
export interface ModelSize
  extends Pick<
    DecoderConfig,
    'vocabSize' | 'hiddenSize' | 'intermediateSize' | 'layers' | 'heads' | 'keyValueHeads' | 'headDim'
  > {
  /** Weights of all tensors; tied ones count once. */
  parameters: number
  /** Bytes of all tensors on disk. */
  weightBytes: number
  trainableParameters: number
}

/** The largest batch of a run. */
export interface BatchSize {
  rows: number
  /** Tokens of a row, with padding. */
  length: number
  /** Trained tokens in all rows together. */
  trained: number
}

/** The parts of a training process's memory at its peak, in bytes. */
export interface MemoryEstimate {
  /** Node.js and the runtime's code. */
  runtime: number
  /** Frozen weights as they lie in their files. */
  mappedWeights: number
  /** The frozen 16-bit weights that are widened at the same time: the head, and one layer's matrices. */
  castWeights: number
  /** Trainable weights, their gradients (in the runtime and copied out) and AdamW's two moments. */
  trainable: number
  /** What each layer keeps of each token for the backward pass. */
  activations: number
  /** Attention probabilities of each layer, rows × heads × length². */
  attention: number
  /** Logits of the trained tokens, their softmax and their gradient. */
  logits: number
  /** The sum of the others. */
  total: number
}

const FLOAT = 4
const RUNTIME_BYTES = 170e6
/** The runtime's allocator grows in steps: measured, the activations take up to a quarter more than they are. */
const ALLOCATOR_SLACK = 1.25
const LOGIT_COPIES = 3

/**
 * Estimates the peak memory of a training step without running it. Each layer keeps, for each token, in float32: two
 * residuals and two norms (4 hidden); query, key and value as projected, rotated and sorted by head, and the context
 * before and after sorting (5 query widths, 5 key widths); gate, activation, up and their product (4 intermediate).
 */
export function estimateMemory(
  model: ModelSize,
  config: Pick<TrainConfig, 'gradient_accumulation_steps'>,
  batch: BatchSize,
): MemoryEstimate {
  // An adapter stands beside the weights, which all stay frozen; full training freezes none.
  const frozen = model.trainableParameters >= model.parameters ? 0 : 1
  const is16Bit = model.weightBytes < FLOAT * model.parameters
  const copies = config.gradient_accumulation_steps > 1 ? 6 : 5
  const queryWidth = model.heads * model.headDim
  const keyWidth = model.keyValueHeads * model.headDim
  const perToken = 4 * model.hiddenSize + 5 * queryWidth + 5 * keyWidth + 4 * model.intermediateSize
  const layerWidth = 3 * model.hiddenSize * model.intermediateSize
  const layerFloats = FLOAT * model.layers * ALLOCATOR_SLACK
  const parts = {
    runtime: RUNTIME_BYTES,
    mappedWeights: model.weightBytes * frozen,
    castWeights: is16Bit ? FLOAT * frozen * (model.vocabSize * model.hiddenSize + layerWidth) : 0,
    trainable: FLOAT * model.trainableParameters * copies,
    activations: layerFloats * batch.rows * batch.length * perToken,
    attention: layerFloats * batch.rows * model.heads * batch.length ** 2,
    logits: FLOAT * LOGIT_COPIES * batch.trained * model.vocabSize,
  }
  const whole = Object.fromEntries(Object.entries(parts).map(([name, bytes]) => [name, Math.round(bytes)]))
  const total = Object.values(whole).reduce((sum, bytes) => sum + bytes, 0)
  return { ...whole, total } as MemoryEstimate
}

/**
 * Refuses a run that would not fit into `availableBytes` of memory.
 *
 * @throws EngineError `too_large` with both numbers and what would help most.
 */
export function checkFits(estimate: MemoryEstimate, availableBytes: number): void {
  if (estimate.total <= availableBytes) return
  const growing = estimate.activations + estimate.attention + estimate.logits
  const help =
    growing > estimate.total / 2
      ? 'Lower per_device_train_batch_size (and raise gradient_accumulation_steps) or cutoff_len.'
      : 'Choose a smaller model or finetuning_type lora, or free memory.'
  throw new EngineError(
    'too_large',
    'out_of_memory',
    `This run needs about ${gigabytes(estimate.total)} (${estimate.total} bytes) of memory, but only ` +
      `${gigabytes(availableBytes)} (${availableBytes} bytes) are available. ${help}`,
    { param: 'per_device_train_batch_size' },
  )
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(2)} GB`
}
